// The command line that all benchmark programs share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace bench {

struct Options {
  bool server = false;    // else client
  bool epoll = false;     // wait with epoll_wait() on non-blocking sockets
  bool json = false;      // one line of JSON, else one line of text
  uint16_t port = 0;      // server: 0 picks a free one
  std::string port_file;  // server: where to say which one
  bool wait = false;      // client, pipes: see await_start()
  bool steps = false;     // connrate: time each step of a connection
  unsigned acceptors = 1; // connrate, server: processes that accept
  bool oneway = false;      // pipes: one way only
  bool socketpair = false;  // pipes: a socket pair instead
  int peer_cpu = -1;      // pipes: the child's
  std::string path;       // of a socket of AF_UNIX, instead of a port
  int cpu = -1;           // -1: wherever the scheduler likes
  double seconds = 0.5;   // measured, after a warm-up of a tenth of it
  size_t size_bytes = 8;  // of one message
};

// Exits with a message on a bad command line. Pins the program to --cpu.
Options parse_options(int argc, char** argv);

// -1: does nothing.
void pin_to(int cpu);

// With --wait: says `ready`, and returns when the standard input ends. So whoever started several of these
// programs lets them all begin at the same time.
void await_start(const Options& options);

}  // namespace bench
