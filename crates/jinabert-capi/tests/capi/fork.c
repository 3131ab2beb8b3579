/* Forks of a process that has used the library, and of one that has not: fork MODEL [DEVICE]. */
#include "kit.h"
#include <sys/wait.h>
#include <unistd.h>

static jinabert_error error;
static const char *model, *device;
static int released;

static void release(void *user) {
    (void)user;
    released++;
}

static void use(void) {
    jinabert_options options = options_on(device);
    jinabert_embedder *embedder = open_model(model, &options);
    const char *text = "a";
    float vector[4096];
    FINE(jinabert_embed(embedder, &text, NULL, 1, vector, 4096, NULL, &error));
    CHECK(jinabert_free(embedder) == JINABERT_STATUS_OK);
}

/* What a child does, within some seconds, to its good end. */
static void in_a_fork(void (*child)(void)) {
    fflush(stdout);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(60);
        child();
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static jinabert_embedder *left_open;

static void refused(void) {
    jinabert_options options = options_on(device);
    jinabert_embedder *embedder = left_open;
    EXPECT(jinabert_open(model, &options, &embedder, &error), FORKED, "is a fork of process");
    char parent[32];
    snprintf(parent, sizeof parent, "process %d,", (int)getppid());
    CHECK(strstr(error.message, parent) != NULL);

    jinabert_file file;
    memset(&file, 0, sizeof file);
    file.name = "config.json";
    file.bytes = (const uint8_t *)"{}";
    file.length = 2;
    file.release = release;
    EXPECT(jinabert_open_memory(&file, 1, &options, &embedder, &error), FORKED, "fork");
    CHECK(released == 1);

    size_t count = 0;
    EXPECT(jinabert_device_count(&count, &error), FORKED, "fork");
    const char *text = "a";
    float vector[4096];
    EXPECT(jinabert_embed(left_open, &text, NULL, 1, vector, 4096, NULL, &error), FORKED, "fork");
    jinabert_description description;
    description.size = sizeof description;
    EXPECT(jinabert_describe(left_open, &description, &error), FORKED, "fork");
    if (left_open) CHECK(jinabert_free(left_open) == JINABERT_STATUS_FORKED);
    CHECK(jinabert_free(NULL) == JINABERT_STATUS_OK && jinabert_open_handles() == 0);
    CHECK(jinabert_abi_version() == JINABERT_ABI_VERSION);
}

int main(int argc, char **argv) {
    CHECK(argc >= 2);
    model = argv[1];
    device = argc > 2 ? argv[2] : "cpu";
    /* Nothing has been used yet. */
    CHECK(strchr(jinabert_version(), '.') != NULL && jinabert_open_handles() == 0);
    in_a_fork(use);
    use();
    in_a_fork(refused);
    /* With a model that is open, and the parent goes on. */
    jinabert_options options = options_on(device);
    left_open = open_model(model, &options);
    in_a_fork(refused);
    CHECK(jinabert_free(left_open) == JINABERT_STATUS_OK);
    left_open = NULL;
    use();
    puts("all as it should be");
    return 0;
}
