// Those subcommands of `sluice bench` that run whole programs: a script makes them (bench/), because it also
// runs other people's servers and draws. This program tells it where the parts of the installation are.
#pragma once

#include <string>
#include <vector>

namespace sluice::monitor::bench {

struct Script {
  const char* name;
  const char* what;
};

constexpr Script kScripts[] = {
    {"ipc", "round trips, messages/s and bandwidth over TCP, AF_UNIX and pipes: kernel against Sluice"},
    {"connect", "connections/s, how long one takes and in which steps; a server with short connections"},
    {"apps", "servers and their load generators"},
    {"protect", "what protection costs: entrances into the library, messages and servers, with each kind of --protect"},
    {"all", "all of the others but protect and dlibos, and a report"},
};

// Does not return if the script could be started; else the exit status.
int run_script(const std::string& name, const std::vector<std::string>& words);

}  // namespace sluice::monitor::bench
