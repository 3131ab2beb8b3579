/* Compiles HLSL as wgpu's Direct3D 12 backend does, one program after the other.

       d3d fxc|dxc PROFILE ENTRY FILE [ENTRY FILE ...]

   Loads d3dcompiler_47.dll or dxcompiler.dll from its own directory.  Writes a line for each file: 1 or 0 for accepted
   or refused, seconds of processor time, bytes of code, and the compiler's message, separated by tabs.  Flags are those
   of wgpu-hal 30, dx12/shader_compilation.rs. */
#define COBJMACROS
#define INITGUID
#include <d3dcommon.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <windows.h>
#include <unknwn.h>

#define ENABLE_STRICTNESS (1 << 11) /* D3DCOMPILE_ENABLE_STRICTNESS */
#define UTF8 65001                  /* DXC_CP_UTF8 */

typedef HRESULT(WINAPI *Fxc)(const void *, SIZE_T, const char *, const void *, void *, const char *, const char *, UINT,
                             UINT, ID3DBlob **, ID3DBlob **);

/* dxcapi.h is no part of mingw: the methods that are called, at their places in the tables. */
typedef HRESULT(WINAPI *DxcCreateInstance)(const GUID *, const GUID *, void **);
typedef struct { const void *ptr; SIZE_T size; UINT encoding; } DxcBuffer;
typedef struct Object { void **methods; } Object;
#define METHOD(object, n, ...) ((HRESULT(WINAPI *)(Object *, __VA_ARGS__))((object)->methods[n]))
#define RELEASE(object) ((ULONG(WINAPI *)(Object *))((object)->methods[2]))(object)
static const GUID CLSID_Compiler = {0x73e22d93, 0xe6ce, 0x47f3, {0xb5, 0xbf, 0xf0, 0x66, 0x4f, 0x39, 0xc1, 0xb0}};
static const GUID IID_Compiler3 = {0x228b4687, 0x5a6a, 0x4730, {0x90, 0x0c, 0x97, 0x02, 0xb2, 0x20, 0x3f, 0x54}};
static const GUID IID_Result = {0x58346cda, 0xdde7, 0x4497, {0x94, 0x61, 0x6f, 0x87, 0xaf, 0x5e, 0x06, 0x59}};
static const GUID IID_Utf8 = {0x3da636c9, 0xba71, 0x4024, {0xa3, 0x01, 0x30, 0xcb, 0xf1, 0x25, 0x30, 0x5b}};
static const GUID IID_Blob = {0x8ba5fb08, 0x5195, 0x40e2, {0xac, 0x58, 0x0d, 0x98, 0x9c, 0x3a, 0x01, 0x02}};
enum { COMPILE = 3, GET_STATUS = 3, GET_OUTPUT = 7, BLOB_POINTER = 3, BLOB_SIZE = 4, OUT_OBJECT = 1, OUT_ERRORS = 2 };

static double processor_time(void) {
    FILETIME created, ended, kernel, user;
    GetProcessTimes(GetCurrentProcess(), &created, &ended, &kernel, &user);
    ULARGE_INTEGER k = {{kernel.dwLowDateTime, kernel.dwHighDateTime}};
    ULARGE_INTEGER u = {{user.dwLowDateTime, user.dwHighDateTime}};
    return 1e-7 * (double)(k.QuadPart + u.QuadPart);
}

static void fail(const char *what, HRESULT code) {
    fprintf(stderr, "d3d: %s (0x%08lx)\n", what, (unsigned long)code);
    exit(2);
}

static char *read_file(const char *path, SIZE_T *size) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path, GetLastError());
    fseek(file, 0, SEEK_END);
    *size = ftell(file);
    rewind(file);
    char *text = malloc(*size + 1);
    if (!text || fread(text, 1, *size, file) != *size) fail(path, GetLastError());
    fclose(file);
    text[*size] = 0;
    return text;
}

static void report(int accepted, double seconds, SIZE_T bytes, const char *message, SIZE_T length) {
    printf("%d\t%.2f\t%llu\t", accepted, seconds, (unsigned long long)bytes);
    for (SIZE_T i = 0; i < length && message[i]; i++)
        putchar(message[i] == '\n' || message[i] == '\t' || message[i] == '\r' ? ' ' : message[i]);
    putchar('\n');
    fflush(stdout);
}

static void fxc(HMODULE library, const char *profile, const char *entry, const char *path) {
    Fxc compile = (Fxc)(void *)GetProcAddress(library, "D3DCompile");
    if (!compile) fail("no D3DCompile in the library", 0);
    SIZE_T size;
    char *text = read_file(path, &size);
    ID3DBlob *code = NULL, *errors = NULL;
    double start = processor_time();
    HRESULT done = compile(text, size, NULL, NULL, NULL, entry, profile, ENABLE_STRICTNESS, 0, &code, &errors);
    double seconds = processor_time() - start;
    report(SUCCEEDED(done), seconds, code ? ID3D10Blob_GetBufferSize(code) : 0,
           errors && FAILED(done) ? ID3D10Blob_GetBufferPointer(errors) : "",
           errors ? ID3D10Blob_GetBufferSize(errors) : 0);
    if (code) ID3D10Blob_Release(code);
    if (errors) ID3D10Blob_Release(errors);
    free(text);
}

static Object *output(Object *result, UINT kind, const GUID *type) {
    Object *found = NULL, *name = NULL;
    METHOD(result, GET_OUTPUT, UINT, const GUID *, void **, Object **)(result, kind, type, (void **)&found, &name);
    if (name) RELEASE(name);
    return found;
}

static SIZE_T blob_size(Object *blob) {
    return blob ? ((SIZE_T(WINAPI *)(Object *))blob->methods[BLOB_SIZE])(blob) : 0;
}

static void dxc(HMODULE library, const char *profile, const char *entry, const char *path) {
    static Object *compiler;
    if (!compiler) {
        DxcCreateInstance create = (DxcCreateInstance)(void *)GetProcAddress(library, "DxcCreateInstance");
        if (!create) fail("no DxcCreateInstance in the library", 0);
        HRESULT made = create(&CLSID_Compiler, &IID_Compiler3, (void **)&compiler);
        if (FAILED(made)) fail("DxcCreateInstance", made);
    }
    wchar_t wide_profile[16], wide_entry[64];
    mbstowcs(wide_profile, profile, 16);
    mbstowcs(wide_entry, entry, 64);
    const wchar_t *arguments[] = {L"-E",  wide_entry, L"-T",           wide_profile,
                                  L"-HV", L"2018",    L"-no-warnings", L"-Ges"};
    SIZE_T size;
    char *text = read_file(path, &size);
    DxcBuffer source = {text, size, UTF8};
    Object *result = NULL;
    double start = processor_time();
    HRESULT called = METHOD(compiler, COMPILE, const DxcBuffer *, const wchar_t **, UINT, void *, const GUID *, void **)(
        compiler, &source, arguments, sizeof arguments / sizeof *arguments, NULL, &IID_Result, (void **)&result);
    double seconds = processor_time() - start;
    if (FAILED(called)) fail("IDxcCompiler3::Compile", called);
    HRESULT status = E_FAIL;
    METHOD(result, GET_STATUS, HRESULT *)(result, &status);
    Object *errors = output(result, OUT_ERRORS, &IID_Utf8);
    Object *code = output(result, OUT_OBJECT, &IID_Blob);
    SIZE_T length = blob_size(errors);
    const char *message = length ? ((void *(WINAPI *)(Object *))errors->methods[BLOB_POINTER])(errors) : "";
    /* wgpu refuses whatever has a message; an empty one is its terminating zero. */
    report(SUCCEEDED(status) && length <= 1, seconds, blob_size(code), message, length);
    if (errors) RELEASE(errors);
    if (code) RELEASE(code);
    RELEASE(result);
    free(text);
}

int main(int count, char **words) {
    if (count < 5 || count % 2 == 0) {
        fprintf(stderr, "usage: d3d fxc|dxc PROFILE ENTRY FILE [ENTRY FILE ...]\n");
        return 2;
    }
    int new = !strcmp(words[1], "dxc");
    const char *name = new ? "dxcompiler.dll" : "d3dcompiler_47.dll";
    HMODULE library = LoadLibraryA(name);
    if (!library) fail(name, GetLastError());
    for (int at = 3; at + 1 < count; at += 2) (new ? dxc : fxc)(library, words[2], words[at], words[at + 1]);
    return 0;
}
