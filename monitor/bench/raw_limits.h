// What the machine itself can do, measured in the same run as what is compared with it. A CPU of -1 is
// whichever one the scheduler likes.
#pragma once

#include <cstddef>

namespace sluice::monitor::bench {

// One cache line from one CPU to another and back, in us.
double line_round_trip_us(int cpu, int other_cpu);

// Messages of one size through a plain ring of 1 MiB between two threads: copied in, published, copied out.
double ring_messages_per_s(std::size_t size_bytes, int cpu, int other_cpu, double seconds);

// memcpy() of as much at a time, in GB/s.
double copy_gb_per_s(std::size_t size_bytes, int cpu, double seconds);

}  // namespace sluice::monitor::bench
