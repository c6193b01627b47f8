// --protect=keys: instructions of the program's that could give it rights to the shim's memory (shm/key_instructions.h), found
// where they become executable: at start-up, when memory is mapped or changed so, and in libraries that were loaded since. Each
// is counted (`sluice status`); where they are says `sluice audit`. With keys-strict memory that has one does not become executable,
// nor does memory that can be written as well, whose contents would not be known for long, or cannot be read.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice::preload {

// Looks at all code there is. With `strict`, what is not the C library's or the loader's own, which leave our key alone, ends
// the program with a line that says where it is.
void begin_code_watch(bool strict);

// Libraries are loaded from now on. It is too late to refuse one when it is there: the loader has its own ways to map.
void note_library();
// If there are new ones: to be called now and then, where it is not often, and outside of locks. What is not allowed ends the program.
void look_at_libraries();
// In the child of a fork.
void note_fork();

// So many were found in this process; each time that memory with one becomes executable anew counts.
uint32_t key_instructions();

// Memory can be written from now on: if it is the C library's code, it is not known any more to be its own.
void note_writing(const void* p, std::size_t bytes);

// Whether memory with these rights is of interest.
bool is_watched(int access);
// Whether judge_code() refuses anything.
bool refuses_code();
// Whether it may not become executable, whatever is in it.
bool is_refused(int access);
// What has become executable: 0, or -EACCES if it may not.
[[nodiscard]] int judge_code(const void* code, std::size_t bytes);

}  // namespace sluice::preload
