// How a relacy model is run. A model restates an algorithm of shm/ with relacy's atomics, which
// enumerate what the C++ memory model allows rather than what this machine happens to do; each
// operation carries the tag of the edge in the header it stands for.
//
// With an argument a model leaves out the thing of that name. It exits with 1 only if relacy
// then finds the very fault that the thing is there to prevent; meson expects that failure.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iostream>

#include <relacy/relacy.hpp>

namespace model {

inline const char* left_out = "";
inline bool has(const char* thing) { return std::strcmp(thing, left_out) != 0; }

inline void full_fence(rl::debug_info_param info) {
  if (has("fence")) rl::atomic_thread_fence(rl::mo_seq_cst, info);
}

enum Search { kExhaustive, kRandom };

// `fault`: what the model comes to when something is left out.
template <class Model>
int run(Search search, rl::iteration_t iterations, rl::test_result_e fault) {
  rl::test_params params;
  params.search_type = search == kExhaustive ? rl::fair_full_search_scheduler_type
                                             : rl::random_scheduler_type;
  params.iteration_count = iterations;
  params.progress_stream = &std::cerr;
  params.progress_output_period = 60;
  rl::simulate<Model>(params);
  std::printf("%s\n", rl::test_result_str(params.test_result));
  if (*left_out != 0) return params.test_result == fault ? 1 : 0;
  return params.test_result == rl::test_result_success ? 0 : 1;
}

}  // namespace model
