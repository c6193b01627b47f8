// A client that connects again and again where several processes accept: it may choose among them by
// itself, and has to go on reaching whoever is there.
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <vector>

#include "harness.h"
#include "sockets.h"
#include "unix_sockets.h"

using namespace conformance;

namespace {

constexpr int kWarmUp = 40;  // connections

// Where to listen and to connect.
struct Place {
  virtual ~Place() = default;
  virtual int connect() = 0;
  int listener = -1;
};

struct TcpPlace : Place {
  uint16_t port;
  TcpPlace() {
    Listener l = make_listener();
    listener = l.fd;
    port = l.port;
  }
  int connect() override { return connect_to(port); }
};

struct UnixPlace : Place {
  std::string name = abstract_name();
  UnixPlace() { listener = unix_listen(name, 128); }
  int connect() override { return unix_connect(name); }
};

std::string own_pid() { return std::to_string(getpid()) + "\n"; }

// Says who it is, and answers to the end.
[[noreturn]] void serve(int listener) {
  for (;;) {
    int fd = accept_one(listener);
    write_all(fd, own_pid());
    for (std::string piece; !(piece = read_once(fd)).empty();) write_all(fd, piece);
    CHECK_OK(close(fd));
  }
}

class Acceptors {
 public:
  Acceptors(Place& place, int count) : place_(place) {
    for (int i = 0; i < count; i++) add();
  }
  ~Acceptors() {
    while (!pids_.empty()) end(pids_.back());
  }
  pid_t add() {
    pids_.push_back(in_child([this] { serve(place_.listener); }));
    return pids_.back();
  }
  void end(pid_t pid) {
    std::erase(pids_, pid);
    CHECK_OK(kill(pid, SIGKILL));
    CHECK_EQ(wait_exit(pid), 128 + SIGKILL);
  }
  const std::vector<pid_t>& pids() const { return pids_; }

 private:
  Place& place_;
  std::vector<pid_t> pids_;
};

std::string line_from(int fd) {
  std::string line;
  while (line.empty() || line.back() != '\n') line += read_exactly(fd, 1);
  return line;
}

// A connection whose acceptor has said who it is.
struct Visit {
  int fd;
  pid_t by;
  explicit Visit(Place& place) : fd(place.connect()), by(std::stoi(line_from(fd))) {}
  void end() const {
    write_all(fd, "bye");
    CHECK_OK(shutdown(fd, SHUT_WR));
    CHECK_EQ(read_to_end(fd), "bye");
    CHECK_OK(close(fd));
  }
};

pid_t visit(Place& place) {
  Visit v(place);
  v.end();
  return v.by;
}

void warm_up(Place& place) {
  for (int i = 0; i < kWarmUp; i++) visit(place);
}

void each_place(void (*body)(Place&)) {
  TcpPlace tcp;
  body(tcp);
  UnixPlace unix;
  body(unix);
}

}  // namespace

TEST("of several acceptors the one that is free is reached, whichever it is") {
  each_place([](Place& place) {
    Acceptors acceptors(place, 3);
    warm_up(place);
    for (int round = 0; round < 10; round++) {
      Visit first(place), second(place);
      CHECK_TRUE(first.by != second.by);
      for (int i = 0; i < 5; i++) {
        pid_t by = visit(place);
        CHECK_TRUE(by != first.by && by != second.by);
      }
      first.end();
      second.end();
    }
  });
}

TEST("many connections at once are shared out among the acceptors") {
  each_place([](Place& place) {
    Acceptors acceptors(place, 4);
    warm_up(place);
    std::map<pid_t, int> got;
    std::vector<Visit> open;
    for (int i = 0; i < 4; i++) open.emplace_back(place);
    for (const Visit& v : open) got[v.by]++;
    CHECK_EQ(got.size(), 4u);
    for (const Visit& v : open) v.end();
  });
}

TEST("an acceptor that has died gets no more connections") {
  each_place([](Place& place) {
    Acceptors acceptors(place, 3);
    for (int left = 3; left > 1; left--) {
      warm_up(place);
      pid_t dead = acceptors.pids().front();
      acceptors.end(dead);
      for (int i = 0; i < kWarmUp; i++) CHECK_TRUE(visit(place) != dead);
    }
  });
}

TEST("an acceptor that comes later is reached too") {
  each_place([](Place& place) {
    Acceptors acceptors(place, 2);
    warm_up(place);
    Visit first(place), second(place);
    pid_t third = acceptors.add();
    for (int i = 0; i < 5; i++) CHECK_EQ(visit(place), third);
    first.end();
    second.end();
    warm_up(place);
  });
}

TEST("an acceptor that closes the listener gets no more connections") {
  each_place([](Place& place) {
    Acceptors acceptors(place, 1);
    int control[2];
    CHECK_OK(pipe(control));
    pid_t leaver = in_child([&] {
      pollfd polled[] = {{place.listener, POLLIN, 0}, {control[0], POLLIN, 0}};
      for (;;) {
        CHECK_OK(poll(polled, 2, -1));
        if (polled[1].revents != 0) break;
        int fd = accept_one(place.listener);  // the other one may have taken it: then the next
        write_all(fd, own_pid());
        for (std::string piece; !(piece = read_once(fd)).empty();) write_all(fd, piece);
        CHECK_OK(close(fd));
      }
      CHECK_OK(close(place.listener));
      pause();
    });
    warm_up(place);
    write_all(control[1], "!");
    for (int i = 0; i < kWarmUp; i++) (void)visit(place);
    CHECK_OK(kill(leaver, SIGKILL));
    CHECK_EQ(wait_exit(leaver), 128 + SIGKILL);
  });
}

TEST("several clients connect at once where several accept") {
  each_place([](Place& place) {
    Acceptors acceptors(place, 3);
    std::vector<pid_t> clients;
    for (int i = 0; i < 4; i++)
      clients.push_back(in_child([&] {
        for (int n = 0; n < 200; n++) visit(place);
      }));
    for (pid_t pid : clients) CHECK_EQ(wait_exit(pid), 0);
  });
}
