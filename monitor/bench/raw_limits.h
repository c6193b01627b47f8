// What the machine itself can do, measured in the same run as what is compared with it.
#pragma once

namespace sluice::monitor::bench {

// One cache line from one CPU to another and back, in us. -1: wherever the scheduler likes.
double line_round_trip_us(int cpu, int other_cpu);

}  // namespace sluice::monitor::bench
