// Fork before the peer has moved at all: parent and child meet it separately.
#include <signal.h>
#include <sys/wait.h>

#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

// A connection to a process that stands still from before connect() on.
struct Unmet {
  Peer peer = spawn_peer();
  int fd = -1;
  Unmet() {
    uint16_t port = peer.start_accepting();
    CHECK_OK(kill(peer.process(), SIGSTOP));
    siginfo_t info;
    CHECK_OK(waitid(P_PID, id_t(peer.process()), &info, WSTOPPED));
    fd = connect_to(port);
  }
  void set_going() {
    CHECK_OK(kill(peer.process(), SIGCONT));
    CHECK_EQ(peer.reply(), 0);  // it has accepted
  }
};

}  // namespace

TEST("a child that sleeps for space hears of the peer's first move") {
  Unmet unmet;
  constexpr uint64_t kTotal = 8 << 20;
  pid_t child = in_child([&] { CHECK_EQ(send_pattern(unmet.fd, kTotal, 10'007), 0); });
  await_sleep(child);
  unmet.set_going();
  unmet.peer.start_receiving(kTotal, 65536);
  CHECK_EQ(wait_exit(child), 0);
  CHECK_EQ(unmet.peer.finish(), 0);
}

TEST("a child's first bytes wake a peer that knows only the parent") {
  Unmet unmet;
  int go[2];
  CHECK_OK(pipe(go));
  pid_t child = in_child([&] {
    CHECK_EQ(read_exactly(go[0], 1), "!");
    write_all(unmet.fd, "hello");
    CHECK_EQ(read_exactly(go[0], 1), "!");  // alive, and silent
  });
  unmet.set_going();
  unmet.peer.send("a");
  CHECK_EQ(read_exactly(unmet.fd, 1), "a");
  std::string heard;
  std::thread asking([&] { heard = unmet.peer.receive(5); });
  await_sleep(unmet.peer.process());
  write_all(go[1], "!");
  asking.join();
  CHECK_EQ(heard, "hello");
  write_all(go[1], "!");
  CHECK_EQ(wait_exit(child), 0);
}
