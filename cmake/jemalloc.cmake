# Defines isthmus::jemalloc, the private static jemalloc that libisthmus contains. It is built at
# configure time by tools/jemalloc.sh into the user's cache, once per compiler and set of flags.

set(ISTHMUS_JEMALLOC_SOURCE "" CACHE FILEPATH
    "jemalloc's release archive; empty: the distribution's source package, else upstream's release")
option(ISTHMUS_JEMALLOC_DEBUG "jemalloc with its own assertions (slow)" OFF)

set(isthmus_jemalloc_args)
if(ISTHMUS_JEMALLOC_SOURCE)
  list(APPEND isthmus_jemalloc_args --source "${ISTHMUS_JEMALLOC_SOURCE}")
endif()
if(ISTHMUS_JEMALLOC_DEBUG)
  list(APPEND isthmus_jemalloc_args --debug)
endif()

# Standard error is not captured: the script's progress lines are for whoever waits.
execute_process(
  COMMAND bash "${CMAKE_CURRENT_LIST_DIR}/../tools/jemalloc.sh" ${isthmus_jemalloc_args}
  OUTPUT_VARIABLE isthmus_jemalloc_prefix
  OUTPUT_STRIP_TRAILING_WHITESPACE
  RESULT_VARIABLE isthmus_jemalloc_result)
if(NOT isthmus_jemalloc_result EQUAL 0)
  message(FATAL_ERROR "jemalloc could not be built; the lines above say why")
endif()

add_library(isthmus::jemalloc STATIC IMPORTED GLOBAL)
set_target_properties(isthmus::jemalloc PROPERTIES
  IMPORTED_LOCATION "${isthmus_jemalloc_prefix}/lib/libjemalloc.a"
  INTERFACE_INCLUDE_DIRECTORIES "${isthmus_jemalloc_prefix}/include")
find_package(Threads REQUIRED)
target_link_libraries(isthmus::jemalloc INTERFACE Threads::Threads m)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
             "${CMAKE_CURRENT_LIST_DIR}/../tools/jemalloc.sh")
