// subject SCENARIO [--strict | --mortal] [--die=ROLE:PLACE,N] [--log=FOLDER]: processes that talk to each other while one call of one of them fails (inject.cpp).
//
// A client tries to have a whole conversation with a server. One failure may cost it one attempt: a call that fails as
// its manual page says, or a reset; never a hang, a crash, or a byte. Each process says which one it is, so that
// the injector can choose.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <spawn.h>
#include <sys/un.h>

#include "tests/faults/inject/echo.h"

extern char** environ;

namespace sluice::tests {
namespace {

constexpr int kAttempts = 3;
constexpr unsigned kSeconds = 12;
const char* self = nullptr;
const char* death = nullptr;
const char* log_folder = nullptr;

// --die=ROLE:PLACE,N of shm/death_point.h.
void doom(const char* role) {
  size_t length = strlen(role);
  if (death != nullptr && strncmp(death, role, length) == 0 && death[length] == ':') setenv("SLUICE_DEATH", death + length + 1, 1);
  if (log_folder == nullptr) return;
  char log[200];
  snprintf(log, sizeof log, "%s/%s", log_folder, role);
  setenv("SLUICE_DEATH_LOG", log, 1);
}

// From now on; what comes before is not what it dies of.
void be_mortal(const char* role) {
  doom(role);
  be(role);
}

struct Scenario {
  const char* name;
  int family, type;
  void (*serve_one)(int fd);
  bool (*talk)(int fd);
  void (*server)(int listener);
  bool meets_worker = false;
};

char path[64];

int bind_and_listen(const Scenario& s) {
  int fd = int(done("socket", [&] { return socket(s.family, s.type, 0); }));
  if (fd < 0) return -1;
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  sockaddr_un un{};
  un.sun_family = AF_UNIX;
  strcpy(un.sun_path, path);
  bool is_unix = s.family == AF_UNIX;
  auto* name = is_unix ? reinterpret_cast<sockaddr*>(&un) : reinterpret_cast<sockaddr*>(&in);
  socklen_t length = is_unix ? sizeof un : sizeof in;
  if (is_unix) unlink(path);
  if (done("bind", [&] { return bind(fd, name, length); }) < 0 || done("listen", [&] { return listen(fd, 16); }) < 0) {
    close(fd);
    return -1;
  }
  if (!is_unix) {
    if (getsockname(fd, name, &length) != 0) wrong("getsockname: %s", strerror(errno));
    page->port.store(ntohs(in.sin_port));
  }
  return fd;
}

// Where nobody listens any more, at a port that the kernel gives out by itself, it may give out that very port: then it connects
// the socket to itself (RFC 9293, 3.5, simultaneous open), once in some thirty thousand times.
bool is_to_itself(int fd) {
  sockaddr_in ours{}, theirs{};
  socklen_t length = sizeof ours;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&ours), &length) != 0) return false;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&theirs), &length) != 0) return false;
  return ours.sin_port == theirs.sin_port && ours.sin_addr.s_addr == theirs.sin_addr.s_addr;
}

int connect_to_server(const Scenario& s) {
  int fd = int(done("socket", [&] { return socket(s.family, s.type, 0); }));
  if (fd < 0) return -1;
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  in.sin_port = htons(uint16_t(page->port.load()));
  sockaddr_un un{};
  un.sun_family = AF_UNIX;
  strcpy(un.sun_path, path);
  bool is_unix = s.family == AF_UNIX;
  auto* name = is_unix ? reinterpret_cast<sockaddr*>(&un) : reinterpret_cast<sockaddr*>(&in);
  if (done("connect", [&] { return connect(fd, name, is_unix ? sizeof un : sizeof in); }) >= 0 && (is_unix || !is_to_itself(fd))) return fd;
  close(fd);
  return -1;
}

// ---- servers -----------------------------------------------------------------------------------------------------

void serve_and_close(int fd) {
  (void)serve(fd, fd);
  close(fd);
}

int accept_one(int listener) {
  return int(done("accept", [&] { return accept(listener, nullptr, nullptr); }));
}

void serve_in_turn(const Scenario& s, int listener) {
  while (!page->over.load()) {
    int fd = accept_one(listener);
    if (fd >= 0 && !page->over.load()) s.serve_one(fd), refused_before = page->refusals.load();
    else if (fd >= 0) close(fd);
  }
}

void in_child(int fd) {
  long child = done("fork", [] { return long(fork()); });
  if (child == 0) {
    be("child");
    serve_and_close(fd);
    _exit(0);
  }
  close(fd);
  while (child > 0 && waitpid(pid_t(child), nullptr, 0) < 0 && errno == EINTR) {}
}

void exec_echo(int fd) {
  if (done("dup", [&] { return dup2(fd, 0); }) < 0 || done("dup", [&] { return dup2(fd, 1); }) < 0) _exit(0);
  close(fd);
  execl(self, self, "--echo", strict ? "--strict" : mortal ? "--mortal" : "--loose", nullptr);
  (void)look_at("exec", errno);
  _exit(0);
}

void in_program(int fd) {
  long child = done("fork", [] { return long(fork()); });
  if (child == 0) {
    side = "child";
    exec_echo(fd);
  }
  close(fd);
  while (child > 0 && waitpid(pid_t(child), nullptr, 0) < 0 && errno == EINTR) {}
}

void in_spawned(int fd) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, fd, 0);
  posix_spawn_file_actions_adddup2(&actions, fd, 1);
  posix_spawn_file_actions_addclose(&actions, fd);
  const char* words[] = {self, "--echo", strict ? "--strict" : mortal ? "--mortal" : "--loose", nullptr};
  pid_t child = -1;
  int error = posix_spawn(&child, self, &actions, nullptr, const_cast<char**>(words), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) (void)look_at("exec", error);
  close(fd);
  while (error == 0 && waitpid(child, nullptr, 0) < 0 && errno == EINTR) {}
}

// One epoll set, edge-triggered, several connections.
void with_epoll(int listener) {
  int set = int(done("epoll_create", [] { return epoll_create1(0); }));
  if (set < 0) set = int(done("epoll_create", [] { return epoll_create1(0); }));
  epoll_event e{EPOLLIN, {.fd = listener}};
  while (done("epoll_ctl", [&] { return epoll_ctl(set, EPOLL_CTL_ADD, listener, &e); }) < 0) {}
  struct Conversation {
    std::vector<char> owed;
    size_t came = 0;
  };
  std::vector<Conversation> all(1024);
  while (!page->over.load()) {
    epoll_event events[8];
    long n = done("epoll_wait", [&] { return epoll_wait(set, events, 8, -1); });
    for (long i = 0; i < n; ++i) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        fd = accept_one(listener);
        if (fd < 0) continue;
        fcntl(fd, F_SETFL, O_NONBLOCK);
        epoll_event add{EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.fd = fd}};
        all[size_t(fd)] = {{}, 0};
        if (done("epoll_ctl", [&] { return epoll_ctl(set, EPOLL_CTL_ADD, fd, &add); }) < 0) close(fd);
        continue;
      }
      Conversation& c = all[size_t(fd)];
      bool over = false;
      for (bool more = true; more && !over;) {
        more = false;
        char buffer[30'000];
        ssize_t k = read(fd, buffer, sizeof buffer);
        if (k == 0 || (k < 0 && errno != EAGAIN && look_at("read", errno) != Result::kFine)) over = true;
        if (k == 0 && !page->over.load()) check_end("the server", c.came);
        for (ssize_t b = 0; b < k; ++b)
          if (buffer[b] != byte_at(c.came + size_t(b))) wrong("byte %zu came wrong", c.came + size_t(b));
        if (k > 0) c.came += size_t(k), more = true, c.owed.insert(c.owed.end(), buffer, buffer + k);
        while (!c.owed.empty() && !over) {
          k = write(fd, c.owed.data(), c.owed.size());
          if (k < 0 && errno == EAGAIN) break;
          if (k < 0 && look_at("write", errno) != Result::kFine) over = true;
          if (k > 0) c.owed.erase(c.owed.begin(), c.owed.begin() + k);
        }
      }
      if (over) close(fd);
    }
  }
}

// ---- passing -----------------------------------------------------------------------------------------------------

bool pass(int channel, int fd, char word) {
  iovec iov{&word, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr m{};
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  if (fd >= 0) {
    m.msg_control = control;
    m.msg_controllen = sizeof control;
    cmsghdr* c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
  }
  return done("sendmsg", [&] { return sendmsg(channel, &m, MSG_NOSIGNAL); }) == 1;
}

// -1: none came, as MSG_CTRUNC says then (recvmsg(2)); -2: the end.
int take_passed(int channel) {
  char word;
  iovec iov{&word, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr m{};
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  long n = done("recvmsg", [&] {
    m.msg_controllen = sizeof control;
    return recvmsg(channel, &m, 0);
  });
  if (n <= 0) return -2;
  int fd = -1;
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  if (c != nullptr && c->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(c), sizeof fd);
  if (fd < 0 && (m.msg_flags & MSG_CTRUNC) == 0) wrong("a descriptor is missing, and nothing says so");
  if (fd < 0) page->refusals.fetch_add(1);
  return fd;
}

int channel_to_worker = -1;

void to_worker(int fd) {
  (void)pass(channel_to_worker, fd, 'c');
  close(fd);
}

// Until either has seen the other: what it takes to meet is not what fails here.
int meet(bool listens) {
  sockaddr_un un{};
  un.sun_family = AF_UNIX;
  snprintf(un.sun_path, sizeof un.sun_path, "%s.worker", path);
  int s = socket(AF_UNIX, SOCK_STREAM, 0), fd = s;
  if (listens) {
    if (bind(s, reinterpret_cast<sockaddr*>(&un), sizeof un) != 0 || listen(s, 4) != 0) wrong("meeting: %s", strerror(errno));
    sem_post(&page->met);
    fd = accept(s, nullptr, nullptr);
    close(s);
    unlink(un.sun_path);
  } else {
    take(page->met);
    if (connect(s, reinterpret_cast<sockaddr*>(&un), sizeof un) != 0) wrong("meeting: %s", strerror(errno));
  }
  for (int i = 0; i < 3; ++i) {
    char byte = 'm';
    if (!listens && write(fd, &byte, 1) != 1) wrong("meeting: %s", strerror(errno));
    if (read(fd, &byte, 1) != 1) wrong("meeting: %s", strerror(errno));
    if (listens && write(fd, &byte, 1) != 1) wrong("meeting: %s", strerror(errno));
  }
  return fd;
}

void work(const Scenario&) {
  int channel = meet(true);
  be_mortal("worker");
  for (int fd; (fd = take_passed(channel)) != -2;)
    if (fd >= 0) serve_and_close(fd), refused_before = page->refusals.load();
}

// A pipe's end goes to the server along with the bytes, and something comes back through it.
void answer_through_pipe(int fd) {
  int end = take_passed(fd);
  if (end >= 0) {
    long n = done("write", [&] { return write(end, "k", 1); });
    (void)n;
    close(end);
  }
  if (end != -2) (void)serve(fd, fd);
  close(fd);
}

bool send_pipe(int fd) {
  int ends[2];
  if (done("pipe", [&] { return pipe(ends); }) < 0) return false;
  bool passed = pass(fd, ends[1], 'p');
  close(ends[1]);
  char byte = 0;
  int before = page->refusals.load();
  // Who waits at the connection, too, makes it elsewhere if the server cannot have it (docs/divergences.md).
  pollfd both[2] = {{ends[0], POLLIN, 0}, {fd, POLLIN, 0}};
  if (passed) (void)done("poll", [&] { return poll(both, 2, -1); });
  // What is under way on a connection that was reset stays open until both sides have closed it.
  if ((both[1].revents & (POLLERR | POLLHUP)) != 0) passed = false;
  long n = passed ? done("read", [&] { return read(ends[0], &byte, 1); }) : -1;
  close(ends[0]);
  if (!mortal && passed && (n != 1 || byte != 'k') && page->refusals.load() == before && page->resets.load() == 0)
    wrong("nothing came through the pipe");
  return n == 1 && converse(fd, fd) && part(fd);
}

// ---- clients -----------------------------------------------------------------------------------------------------

bool talk(int fd) { return converse(fd, fd) && part(fd); }
bool talk_in_turns(int fd) { return converse_in_turns(fd) && part(fd); }
bool talk_in_records(int fd) { return converse(fd, fd, true) && part(fd); }

// The conversation goes through another process of the client's, which has it from a fork in the middle.
bool talk_in_child(int fd) {
  long child = done("fork", [] { return long(fork()); });
  if (child < 0) return false;
  if (child == 0) {
    be("child");
    _exit(talk(fd) ? 0 : 1);
  }
  int status = 1;
  while (waitpid(pid_t(child), &status, 0) < 0 && errno == EINTR) {}
  if (WIFSIGNALED(status) && !mortal) wrong("the client's child has ended by signal %d", WTERMSIG(status));
  return status == 0;
}

// ---- pipes: no server, a child at the other ends -----------------------------------------------------------------

bool talk_over_pipes(bool program) {
  int there[2], back[2];
  if (done("pipe", [&] { return pipe(there); }) < 0) return false;
  if (done("pipe", [&] { return pipe(back); }) < 0) return close(there[0]), close(there[1]), false;
  long child = done("fork", [] { return long(fork()); });
  if (child == 0) {
    close(there[1]);
    close(back[0]);
    if (program) {
      side = "child";
      if (dup2(there[0], 0) < 0 || dup2(back[1], 1) < 0) (void)look_at("dup", errno), _exit(0);
      close(there[0]), close(back[1]);
      execl(self, self, "--echo", strict ? "--strict" : mortal ? "--mortal" : "--loose", nullptr);
      (void)look_at("exec", errno);
      _exit(0);
    }
    be("child");
    (void)serve(there[0], back[1]);
    _exit(0);
  }
  close(there[0]);
  close(back[1]);
  bool fine = child > 0;
  std::vector<char> text(30'000);
  size_t sent = 0, returned = 0;
  while (fine && sent < kTotal) {
    size_t n = kTotal - sent < text.size() ? kTotal - sent : text.size();
    for (size_t i = 0; i < n; ++i) text[i] = byte_at(sent + i);
    for (size_t k = 0; fine && k < n;) {
      long w = done("write", [&] { return write(there[1], text.data() + k, n - k); });
      fine = w >= 0;
      k += size_t(fine ? w : 0);
    }
    sent += n;
    while (fine && returned < sent) {
      char buffer[20'000];
      long k = done("read", [&] { return read(back[0], buffer, sizeof buffer); });
      if (k == 0) check_end("the client", returned);
      fine = k > 0;
      for (long i = 0; i < k; ++i)
        if (buffer[i] != byte_at(returned + size_t(i))) wrong("byte %zu came back wrong", returned + size_t(i)), fine = false;
      returned += size_t(k > 0 ? k : 0);
    }
  }
  close(there[1]);
  close(back[0]);
  int status = 0;
  while (child > 0 && waitpid(pid_t(child), &status, 0) < 0 && errno == EINTR) {}
  if (WIFSIGNALED(status) && !mortal) wrong("the child has ended by signal %d", WTERMSIG(status));
  return fine;
}

// ---- the cast ----------------------------------------------------------------------------------------------------

const Scenario kScenarios[] = {
    {"tcp", AF_INET, SOCK_STREAM, serve_and_close, talk, nullptr},
    {"turns", AF_INET, SOCK_STREAM, serve_and_close, talk_in_turns, nullptr},
    {"epoll", AF_INET, SOCK_STREAM, nullptr, talk, with_epoll},
    {"unix", AF_UNIX, SOCK_STREAM, serve_and_close, talk, nullptr},
    {"records", AF_UNIX, SOCK_SEQPACKET, serve_and_close, talk_in_records, nullptr},
    {"rights", AF_UNIX, SOCK_STREAM, answer_through_pipe, send_pipe, nullptr},
    {"fork", AF_INET, SOCK_STREAM, in_child, talk, nullptr},
    {"fork_client", AF_INET, SOCK_STREAM, serve_and_close, talk_in_child, nullptr},
    {"exec", AF_INET, SOCK_STREAM, in_program, talk, nullptr},
    {"spawn", AF_INET, SOCK_STREAM, in_spawned, talk, nullptr},
    {"pass", AF_INET, SOCK_STREAM, to_worker, talk, nullptr, true},
    {"pipe", 0, 0, nullptr, nullptr, nullptr},
    {"pipe_exec", 0, 0, nullptr, nullptr, nullptr},
};

void be_server(const Scenario& s) {
  if (s.meets_worker) channel_to_worker = meet(false);
  be_mortal("server");
  int listener = -1;
  for (int i = 0; i < kAttempts && listener < 0; ++i) listener = bind_and_listen(s);
  if (listener < 0) wrong("cannot listen");
  sem_post(&page->listening);
  if (s.server != nullptr) s.server(listener);
  else serve_in_turn(s, listener);
}

void be_client(const Scenario& s) {
  if (s.family != 0) take(page->listening);
  be_mortal("client");
  bool whole = false;
  for (int i = 0; i < kAttempts && !whole; ++i) {
    page->attempts.fetch_add(1);
    refused_before = page->refusals.load();
    if (s.family == 0) {
      whole = talk_over_pipes(strcmp(s.name, "pipe_exec") == 0);
      continue;
    }
    int fd = connect_to_server(s);
    whole = fd >= 0 && s.talk(fd);
    if (fd >= 0) close(fd);
  }
  if (!whole && !mortal) wrong("no conversation was whole");
  prctl(kMark, role_of("over"), 0, 0, 0);
  page->over.store(true);
  if (s.family == 0) return;
  int fd = connect_to_server(s);  // wakes the server, and stays until that has seen it
  char byte;
  while (fd >= 0 && read(fd, &byte, 1) < 0 && errno == EINTR) {}
}

template <class F>
pid_t begin(F&& life) {
  pid_t child = fork();
  if (child == 0) {
    be("nobody");
    alarm(kSeconds);
    life();
    _exit(0);
  }
  return child;
}

void check_life(pid_t pid, const char* who) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
  if (!WIFSIGNALED(status)) return;
  if (mortal && WTERMSIG(status) == SIGKILL) return void(page->killed.fetch_add(1));
  if (WTERMSIG(status) == SIGALRM) wrong("the %s hangs", who);
  else wrong("the %s has ended by signal %d", who, WTERMSIG(status));
}

// In the stead of a client that has died. Who has died before it could listen is not waited for.
void end_server(const Scenario& s) {
  page->over.store(true);
  sem_post(&page->listening);
  while (page->port.load() == 0 && s.family != AF_UNIX) return;
  int fd = connect_to_server(s);
  if (fd >= 0) close(fd);
}

int play(const Scenario& s) {
  be("driver");
  if (!isatty(9) && fcntl(9, F_GETFD) < 0) {
    int fd = memfd_create("page", 0);
    if (fd < 0 || dup2(fd, 9) != 9 || ftruncate(9, 4096) != 0) return 2;
    if (fd != 9) close(fd);
  }
  page = static_cast<Page*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, 9, 0));
  sem_init(&page->listening, 1, 0);
  sem_init(&page->met, 1, 0);
  snprintf(path, sizeof path, "/tmp/sluice-subject.%d", getpid());
  signal(SIGPIPE, SIG_IGN);
  pid_t server = s.family != 0 ? begin([&] { be_server(s); }) : -1;
  pid_t worker = s.meets_worker ? begin([&] { work(s); }) : -1;
  pid_t client = begin([&] { be_client(s); });
  if (mortal && server > 0) {  // who waits for one that has died waits no more
    siginfo_t info;
    while (waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR) {}
    sem_post(&page->listening);
  }
  check_life(client, "client");
  if (mortal && server > 0) end_server(s);
  if (server > 0) check_life(server, "server");
  if (worker > 0) check_life(worker, "worker");
  unlink(path);
  printf("attempts %d refusals %d resets %d wrong %d\n", page->attempts.load(), page->refusals.load(),
         page->resets.load(), page->wrong.load());
  if (mortal) printf("killed %d\n", page->killed.load());
  fflush(stdout);
  return page->wrong.load() == 0 ? 0 : 1;
}

int echo() {
  page = static_cast<Page*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, 9, 0));
  if (page == MAP_FAILED) return 2;
  alarm(kSeconds);
  signal(SIGPIPE, SIG_IGN);
  be("program");
  (void)serve(0, 1);
  return 0;
}

}  // namespace
}  // namespace sluice::tests

int main(int argc, char** argv) {
  using namespace sluice::tests;
  self = "/proc/self/exe";
  for (int i = 2; i < argc; ++i) {
    strict |= strcmp(argv[i], "--strict") == 0;
    mortal |= strcmp(argv[i], "--mortal") == 0;
    orphaned |= strcmp(argv[i], "--orphaned") == 0;
    if (strncmp(argv[i], "--die=", 6) == 0) death = argv[i] + 6;
    if (strncmp(argv[i], "--log=", 6) == 0) log_folder = argv[i] + 6;
  }
  if (argc > 1 && strcmp(argv[1], "--echo") == 0) return echo();
  for (const Scenario& s : kScenarios)
    if (argc > 1 && strcmp(argv[1], s.name) == 0) return play(s);
  for (const Scenario& s : kScenarios) printf("%s\n", s.name);
  return argc > 1 ? 2 : 0;
}
