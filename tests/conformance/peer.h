// The other end of a connection, driven by remote control: a thread of this process or a program
// of its own (an exec'ed copy of this one), so that the same test covers both. Orders travel
// through a mailbox in shared memory with semaphores, which no socket layer can disturb.
#pragma once

#include <netinet/in.h>
#include <semaphore.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "harness.h"

namespace conformance {

struct Mailbox;
enum class PeerOrder;

class Peer {
 public:
  Peer() = default;
  Peer(Mailbox* mailbox, pid_t process) : mailbox_(mailbox), process_(process) {}

  void send(std::string_view bytes);  // at most 64 KiB
  std::string receive(size_t count);  // at most 64 KiB; less only at the end of the stream
  int receive_error();                // errno of a recv(), 0 if that succeeds or ends
  void shutdown(int how);
  void close();
  void reset();                 // close with RST
  std::string local_address();  // as Address::text()
  std::string peer_address();
  uint16_t start_accepting();  // the port; reply() when a connection was accepted
  size_t fill();               // writes the pattern until EAGAIN

  // Long transfers run while the test goes on; finish() yields 0 or -errno.
  void start_sending(uint64_t total, size_t chunk);
  void start_receiving(uint64_t total, size_t chunk);
  void start_echo();  // until the end of the stream
  int finish();

  bool is_process() const { return process_ != 0; }
  pid_t process() const { return process_; }
  void kill();  // -9, and reaps it

  // Without waiting; what the order answers is for reply().
  void post(PeerOrder order, int64_t a = 0, int64_t b = 0);
  int64_t reply();

 private:
  int64_t call(PeerOrder order, int64_t a = 0, int64_t b = 0);

  Mailbox* mailbox_ = nullptr;
  pid_t process_ = 0;
};

struct Connection {
  int fd;
  Peer peer;
};

Connection connect_peer(Where where, int family = AF_INET);
// A peer in a program of its own that connects to a listener of the test's; reply() when done.
Peer spawn_client(uint16_t port, int family = AF_INET);
// One that waits for orders.
Peer spawn_peer();

}  // namespace conformance
