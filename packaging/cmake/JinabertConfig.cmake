# Finds the C library of jinabert in the prefix where this file is installed.
#
#     list(APPEND CMAKE_PREFIX_PATH PREFIX)
#     find_package(Jinabert 0.1 REQUIRED)
#     target_link_libraries(program PRIVATE Jinabert::jinabert)
#
# Variables and target: see share/jinabert/cmake/FindJinabert.cmake.

set(_jinabert_only NO_DEFAULT_PATH)
include("${CMAKE_CURRENT_LIST_DIR}/../../../share/jinabert/cmake/FindJinabert.cmake")
unset(_jinabert_only)
