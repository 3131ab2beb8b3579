# Finds the C library of jinabert.
#
#     list(APPEND CMAKE_MODULE_PATH PREFIX/share/jinabert/cmake)
#     find_package(Jinabert REQUIRED)
#     target_link_libraries(program PRIVATE Jinabert::jinabert)
#
# It is looked for where this file was installed, in CMAKE_PREFIX_PATH, Jinabert_ROOT and the system's places.
# JINABERT_STATIC=ON takes libjinabert.a.  Sets Jinabert_FOUND, Jinabert_ABI_VERSION, Jinabert_INCLUDE_DIR,
# Jinabert_LIBRARY, and makes the target Jinabert::jinabert.

get_filename_component(_jinabert_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

find_path(Jinabert_INCLUDE_DIR jinabert.h HINTS "${_jinabert_prefix}/include")

if(JINABERT_STATIC)
    set(_jinabert_names "${CMAKE_STATIC_LIBRARY_PREFIX}jinabert${CMAKE_STATIC_LIBRARY_SUFFIX}")
else()
    set(_jinabert_names jinabert)
endif()
find_library(Jinabert_LIBRARY NAMES ${_jinabert_names} HINTS "${_jinabert_prefix}/lib")

if(Jinabert_INCLUDE_DIR)
    file(STRINGS "${Jinabert_INCLUDE_DIR}/jinabert.h" _jinabert_line REGEX "#define JINABERT_ABI_VERSION [0-9]+")
    string(REGEX REPLACE ".* " "" Jinabert_ABI_VERSION "${_jinabert_line}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Jinabert REQUIRED_VARS Jinabert_LIBRARY Jinabert_INCLUDE_DIR)

if(Jinabert_FOUND AND NOT TARGET Jinabert::jinabert)
    add_library(Jinabert::jinabert UNKNOWN IMPORTED)
    set_target_properties(Jinabert::jinabert PROPERTIES
        IMPORTED_LOCATION "${Jinabert_LIBRARY}"
        INTERFACE_INCLUDE_DIRECTORIES "${Jinabert_INCLUDE_DIR}")
    if(JINABERT_STATIC)
        # What Rust's standard library needs of the system.
        find_package(Threads REQUIRED)
        set_property(TARGET Jinabert::jinabert PROPERTY INTERFACE_LINK_LIBRARIES
            Threads::Threads ${CMAKE_DL_LIBS} $<$<PLATFORM_ID:Linux>:m>)
    endif()
endif()
mark_as_advanced(Jinabert_INCLUDE_DIR Jinabert_LIBRARY)
