# Finds the C library of jinabert.
#
#     list(APPEND CMAKE_MODULE_PATH PREFIX/share/jinabert/cmake)
#     find_package(Jinabert REQUIRED)
#     target_link_libraries(program PRIVATE Jinabert::jinabert)
#
# Searched directories: the prefix where this file is installed, CMAKE_PREFIX_PATH, Jinabert_ROOT, the system's.
# JINABERT_STATIC=ON selects libjinabert.a.  Sets Jinabert_FOUND, Jinabert_VERSION, Jinabert_ABI_VERSION,
# Jinabert_INCLUDE_DIR, Jinabert_LIBRARY, and defines the target Jinabert::jinabert.
# lib/cmake/Jinabert/JinabertConfig.cmake does the same without CMAKE_MODULE_PATH.

get_filename_component(_jinabert_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

find_path(Jinabert_INCLUDE_DIR jinabert.h HINTS "${_jinabert_prefix}/include" ${_jinabert_only})

if(JINABERT_STATIC)
    set(_jinabert_names "${CMAKE_STATIC_LIBRARY_PREFIX}jinabert${CMAKE_STATIC_LIBRARY_SUFFIX}")
else()
    set(_jinabert_names jinabert)
endif()
find_library(Jinabert_LIBRARY NAMES ${_jinabert_names} HINTS "${_jinabert_prefix}/lib" ${_jinabert_only})

if(Jinabert_INCLUDE_DIR)
    file(STRINGS "${Jinabert_INCLUDE_DIR}/jinabert.h" _jinabert_line REGEX "#define JINABERT_ABI_VERSION [0-9]+")
    string(REGEX REPLACE ".* " "" Jinabert_ABI_VERSION "${_jinabert_line}")
endif()

# Version of the library that was found, and whether it satisfies the request, by the version file beside it.  A
# function, so that the variables of that file are local.
function(_jinabert_version)
    set(suits TRUE)
    get_filename_component(directory "${Jinabert_LIBRARY}" DIRECTORY)
    set(file "${directory}/cmake/Jinabert/JinabertConfigVersion.cmake")
    if(EXISTS "${file}")
        foreach(part "" _MAJOR _MINOR _RANGE _MIN _MAX _RANGE_MAX)
            set(PACKAGE_FIND_VERSION${part} "${Jinabert_FIND_VERSION${part}}")
        endforeach()
        include("${file}")
        set(version "${PACKAGE_VERSION}")
        set(suits "${PACKAGE_VERSION_COMPATIBLE}")
    elseif(Jinabert_FIND_VERSION)
        set(version unknown)
        set(suits FALSE)
    endif()
    if(NOT suits)
        set(_jinabert_why "${Jinabert_LIBRARY} is of version ${version}: expected ${Jinabert_FIND_VERSION}" PARENT_SCOPE)
    endif()
    set(Jinabert_VERSION "${version}" PARENT_SCOPE)
    set(Jinabert_VERSION_SUITS "${suits}" PARENT_SCOPE)
endfunction()

set(_jinabert_why)
set(Jinabert_VERSION_SUITS TRUE)
if(Jinabert_LIBRARY)
    _jinabert_version()
endif()

set(_jinabert_range)
if(NOT CMAKE_VERSION VERSION_LESS 3.19)
    set(_jinabert_range HANDLE_VERSION_RANGE)
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Jinabert
    REQUIRED_VARS Jinabert_LIBRARY Jinabert_INCLUDE_DIR Jinabert_VERSION_SUITS
    VERSION_VAR Jinabert_VERSION ${_jinabert_range}
    REASON_FAILURE_MESSAGE "${_jinabert_why}")

if(Jinabert_FOUND AND NOT TARGET Jinabert::jinabert)
    add_library(Jinabert::jinabert UNKNOWN IMPORTED)
    set_target_properties(Jinabert::jinabert PROPERTIES
        IMPORTED_LOCATION "${Jinabert_LIBRARY}"
        INTERFACE_INCLUDE_DIRECTORIES "${Jinabert_INCLUDE_DIR}")
    if(JINABERT_STATIC)
        # System libraries that Rust's standard library needs.
        find_package(Threads REQUIRED)
        set_property(TARGET Jinabert::jinabert PROPERTY INTERFACE_LINK_LIBRARIES
            Threads::Threads ${CMAKE_DL_LIBS} $<$<PLATFORM_ID:Linux>:m>)
    endif()
endif()
mark_as_advanced(Jinabert_INCLUDE_DIR Jinabert_LIBRARY)
