// A program that is about to forbid itself system calls (seccomp(2)) means those that it makes itself: what it reads and
// writes then takes no other ones of ours.
#pragma once

namespace sluice::preload {

extern bool restricted;  // there are no new channels of socket pairs
void before_restriction();

}  // namespace sluice::preload
