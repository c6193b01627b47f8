// Makes very many connections to an echo server.
//
//   many_connections PORT|PATH
//
// Each line of input is an order, answered with "done": "sequence N" makes N connections one after
// the other, each with a byte there and back; "hold N" opens N more, each likewise, and keeps them,
// until "release"; "wait" sleeps in epoll_wait, where all that are held are registered, until there is input.
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "meeting_place.h"

namespace {

[[noreturn]] void give_up(const char* what, int number) {
  printf("FAILED: %s: %s at connection %d\n", what, strerror(errno), number);
  fflush(stdout);
  _exit(1);
}

int echo_once(const MeetingPlace& place, int number) {
  int fd = place.make_socket();
  if (fd < 0) give_up("socket", number);
  if (place.connect(fd) != 0) give_up("connect", number);
  char byte = char(number), back = char(number + 1);
  errno = 0;
  if (write(fd, &byte, 1) != 1) give_up("write", number);
  if (read(fd, &back, 1) != 1 || back != byte) give_up("read", number);
  return fd;
}

// Sleeps as an idle server does. Of its descriptors only the input ever has something to say.
void wait_for_input(int epoll) {
  epoll_event event;
  int n;
  do n = epoll_wait(epoll, &event, 1, -1);
  while (n < 0 && errno == EINTR);
  if (n != 1 || event.data.fd != 0) give_up("an event where nothing happened", event.data.fd);
}

void watch(int epoll, int fd) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP;
  event.data.fd = fd;
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) give_up("epoll_ctl", fd);
}

}  // namespace

int main(int argc, char** argv) {
  MeetingPlace place(argc > 1 ? argv[1] : "0");
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  watch(epoll, 0);
  setvbuf(stdin, nullptr, _IONBF, 0);  // what stdio has read epoll does not see
  std::vector<int> held;
  char line[64];
  while (fgets(line, sizeof line, stdin)) {
    int count = 0;
    if (sscanf(line, "sequence %d", &count) == 1)
      for (int i = 0; i < count; ++i) close(echo_once(place, i));
    else if (sscanf(line, "hold %d", &count) == 1)
      for (int i = 0; i < count; ++i) watch(epoll, held.emplace_back(echo_once(place, i)));
    else if (strncmp(line, "release", 7) == 0)
      for (; !held.empty(); held.pop_back()) close(held.back());
    puts("done");
    fflush(stdout);
    if (strncmp(line, "wait", 4) == 0) wait_for_input(epoll);
  }
}
