# Finds the C library of jinabert where this file was installed.
#
#     list(APPEND CMAKE_PREFIX_PATH PREFIX)
#     find_package(Jinabert 0.1 REQUIRED)
#     target_link_libraries(program PRIVATE Jinabert::jinabert)
#
# share/jinabert/cmake/FindJinabert.cmake says what it sets.

set(_jinabert_only NO_DEFAULT_PATH)
include("${CMAKE_CURRENT_LIST_DIR}/../../../share/jinabert/cmake/FindJinabert.cmake")
unset(_jinabert_only)
