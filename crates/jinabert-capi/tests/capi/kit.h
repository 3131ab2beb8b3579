/* What the programs here share. C11 and C++17 both read it. */
#ifndef KIT_H
#define KIT_H

#include <jinabert.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a driver still points to from its own data when the loader closes it counts as leaked, for
 * the data are gone. So none is closed where leaks are looked for: the library's would still show. */
#ifdef __SANITIZE_ADDRESS__
#ifdef __cplusplus
extern "C"
#endif
int dlclose(void *library);
int dlclose(void *library) {
    (void)library;
    return 0;
}
#endif

#define CHECK(what)                                                          \
    do {                                                                     \
        if (!(what)) {                                                       \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
            exit(1);                                                         \
        }                                                                    \
    } while (0)

/* The call ends so, and its message has this in it. */
#define EXPECT(call, wanted, says)                                                           \
    do {                                                                                     \
        memset(&error, 0x5a, sizeof error);                                                  \
        jinabert_status status_ = (call);                                                    \
        if (status_ != JINABERT_STATUS_##wanted || error.status != status_ ||                \
            !memchr(error.message, 0, sizeof error.message) || !strstr(error.message, says)) { \
            fprintf(stderr, "%s:%d: %s, not " #wanted " with `%s`: %s\n", __FILE__, __LINE__,  \
                    jinabert_status_name(status_), says, error.message);                     \
            exit(1);                                                                         \
        }                                                                                    \
    } while (0)

#define FINE(call) EXPECT(call, OK, "")

static inline jinabert_options options_on(const char *device) {
    jinabert_options options;
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.device = device;
    return options;
}

static inline jinabert_embedder *open_model(const char *model, const jinabert_options *options) {
    jinabert_error error;
    jinabert_embedder *embedder = NULL;
    FINE(jinabert_open(model, options, &embedder, &error));
    CHECK(embedder != NULL);
    return embedder;
}

static inline size_t dimensions_of(const jinabert_embedder *embedder) {
    jinabert_error error;
    jinabert_description is;
    is.size = sizeof is;
    FINE(jinabert_describe(embedder, &is, &error));
    return is.dimensions;
}

static inline float *floats(size_t count) {
    float *room = (float *)malloc((count ? count : 1) * sizeof(float));
    CHECK(room != NULL);
    for (size_t i = 0; i < count; i++) room[i] = 77.0f;
    return room;
}

/* Nothing was written. */
static inline int untouched(const float *room, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (room[i] != 77.0f) return 0;
    return 1;
}

static inline float furthest(const float *a, const float *b, size_t count) {
    float most = 0;
    for (size_t i = 0; i < count; i++) most = fmaxf(most, fabsf(a[i] - b[i]));
    return most;
}

#endif
