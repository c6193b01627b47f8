// Sends back what it receives. Prints its port or path; ends when it is killed.
//
//   echo_server [--accept=epoll|blocking|prefork|fork|forkpoll] [--workers=N] [--port=P|PATH]
//
// epoll: one thread sleeps in epoll_wait. blocking: one sleeps in accept, one per connection in
// read. prefork: one sleeps in accept, then in read, one connection after the other. fork: a process per connection; forkpoll: which sleeps in poll. With workers, that many processes serve one listener; one that dies is replaced.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <unordered_map>

#include "meeting_place.h"

namespace {

[[noreturn]] void give_up(const char* what) {
  perror(what);
  _exit(1);
}

int listen_on(const MeetingPlace& place) {
  int fd = place.make_socket();
  if (place.bind(fd) != 0) give_up("bind");
  if (listen(fd, 511) != 0) give_up("listen");
  printf("%s\n", place.text_of(fd).c_str());
  fflush(stdout);
  return fd;
}

// ---- one thread per connection ---------------------------------------------------------

void echo_until_the_end(int fd, bool polls = false) {
  static thread_local char buffer[32768];
  for (;;) {
    pollfd p{fd, POLLIN, 0};
    if (polls && poll(&p, 1, -1) < 0 && errno != EINTR) give_up("poll");
    ssize_t n = read(fd, buffer, sizeof buffer);
    if (n <= 0) break;
    for (ssize_t sent = 0; sent < n;) {
      ssize_t m = send(fd, buffer + sent, size_t(n - sent), MSG_NOSIGNAL);
      if (m < 0) return void(close(fd));
      sent += m;
    }
  }
  close(fd);
}

void serve_blocking(int listener) {
  for (;;) {
    int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd >= 0)
      std::thread([fd] { echo_until_the_end(fd); }).detach();
    else if (errno != EINTR && errno != ECONNABORTED)
      give_up("accept");
  }
}

// ---- one connection at a time ----------------------------------------------------------

void serve_one_by_one(int listener) {
  for (;;) {
    int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd >= 0)
      echo_until_the_end(fd);
    else if (errno != EINTR && errno != ECONNABORTED)
      give_up("accept");
  }
}

// ---- one process per connection --------------------------------------------------------

void serve_forking(int listener, bool polls) {
  signal(SIGCHLD, SIG_IGN);  // nobody to wait for
  for (;;) {
    int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0 && errno != EINTR && errno != ECONNABORTED) give_up("accept");
    if (fd < 0) continue;
    pid_t pid = fork();
    if (pid < 0) give_up("fork");
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      close(listener);
      echo_until_the_end(fd, polls);
      _exit(0);
    }
    close(fd);
  }
}

// ---- one thread for all ----------------------------------------------------------------

class Server {
 public:
  explicit Server(int listener) : listener_(listener), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    // Never waits for a connection that a sibling has taken.
    fcntl(listener_, F_SETFL, fcntl(listener_, F_GETFL) | O_NONBLOCK);
    watch(listener_, EPOLL_CTL_ADD, EPOLLIN);
  }

  void run() {
    for (;;) {
      epoll_event events[64];
      int n = epoll_wait(epoll_, events, 64, -1);
      if (n < 0 && errno != EINTR) give_up("epoll_wait");
      for (int i = 0; i < n; ++i) {
        if (events[i].data.fd == listener_)
          accept_one();
        else if (!serve(events[i].data.fd))
          end(events[i].data.fd);
      }
    }
  }

 private:
  void watch(int fd, int operation, uint32_t wanted) {
    epoll_event event{};
    event.events = wanted;
    event.data.fd = fd;
    if (epoll_ctl(epoll_, operation, fd, &event) != 0) give_up("epoll_ctl");
  }

  void accept_one() {
    int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
      watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
      give_up("accept4");
  }

  // False when the connection is over.
  bool serve(int fd) {
    std::string& unsent = unsent_[fd];
    if (!unsent.empty()) return flush(fd, unsent);
    static char buffer[32768];
    ssize_t n = read(fd, buffer, sizeof buffer);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    if (n == 0) return false;
    unsent.assign(buffer, size_t(n));
    return flush(fd, unsent);
  }

  bool flush(int fd, std::string& unsent) {
    bool waited = waiting_.contains(fd);
    ssize_t n = send(fd, unsent.data(), unsent.size(), MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) return false;
    unsent.erase(0, size_t(n < 0 ? 0 : n));
    bool waits = !unsent.empty();
    if (waits == waited) return true;
    watch(fd, EPOLL_CTL_MOD, waits ? EPOLLOUT : EPOLLIN);
    if (waits)
      waiting_[fd] = true;
    else
      waiting_.erase(fd);
    return true;
  }

  void end(int fd) {
    unsent_.erase(fd);
    waiting_.erase(fd);
    close(fd);
  }

  int listener_;
  int epoll_;
  std::unordered_map<int, std::string> unsent_;
  std::unordered_map<int, bool> waiting_;
};

// ---- several processes for one listener ------------------------------------------------

void serve(int listener, const std::string& accept) {
  if (accept == "blocking") serve_blocking(listener);
  if (accept == "prefork") serve_one_by_one(listener);
  if (accept == "fork" || accept == "forkpoll") serve_forking(listener, accept == "forkpoll");
  Server(listener).run();
}

void start_worker(int listener, const std::string& accept) {
  pid_t parent = getpid();
  pid_t pid = fork();
  if (pid < 0) give_up("fork");
  if (pid > 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(0);
  serve(listener, accept);
}

}  // namespace

int main(int argc, char** argv) {
  std::string accept = "epoll";
  int workers = 0;
  MeetingPlace place;
  for (int i = 1; i < argc; ++i) {
    std::string option = argv[i];
    std::string value = option.substr(option.find('=') + 1);
    if (option.starts_with("--accept=")) accept = value;
    if (option.starts_with("--workers=")) workers = atoi(value.c_str());
    if (option.starts_with("--port=")) place = MeetingPlace(value);
  }
  int listener = listen_on(place);
  if (workers == 0) serve(listener, accept);
  for (int i = 0; i < workers; ++i) start_worker(listener, accept);
  for (;;)
    if (wait(nullptr) > 0) start_worker(listener, accept);
}
