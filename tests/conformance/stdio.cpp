// stdio(3) over connections: FILE streams, dprintf, perror, and a shell's redirections.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <wchar.h>

#include <memory>
#include <string>
#include <vector>

#include "harness.h"
#include "peer.h"
#include "sockets.h"

using namespace conformance;

namespace {

FILE* open_stream(int fd, const char* mode) {
  FILE* f = fdopen(fd, mode);
  CHECK_TRUE(f != nullptr);
  return f;
}

// A descriptor that does not stay behind when the stream is closed.
bool is_open(int fd) { return fcntl(fd, F_GETFD) >= 0; }

}  // namespace

TEST_EVERYWHERE("lines go both ways through one stream") {
  auto [fd, peer] = connect_peer(where);
  FILE* f = open_stream(fd, "r+");
  for (int i = 0; i < 100; i++) {
    std::string line = "line " + std::to_string(i) + "\n";
    CHECK_EQ(fprintf(f, "%s", line.c_str()), line.size());
    CHECK_EQ(fflush(f), 0);
    CHECK_EQ(peer.receive(line.size()), line);
    peer.send(line);
    char* text = nullptr;
    size_t room = 0;
    CHECK_EQ(getline(&text, &room, f), line.size());
    CHECK_EQ(std::string(text), line);
    free(text);
  }
  CHECK_EQ(fclose(f), 0);
}

TEST_EVERYWHERE("fclose flushes and closes the connection") {
  auto [fd, peer] = connect_peer(where);
  FILE* f = open_stream(fd, "w");
  fputs("last words", f);
  CHECK_EQ(fclose(f), 0);
  CHECK_TRUE(!is_open(fd));
  CHECK_EQ(peer.receive(100), "last words");
}

TEST_EVERYWHERE("fclose of one of two streams keeps the connection") {
  auto [fd, peer] = connect_peer(where);
  FILE* in = open_stream(fd, "r");
  FILE* out = open_stream(CHECK_OK(dup(fd)), "w");
  fputs("question\n", out);
  CHECK_EQ(fclose(out), 0);
  CHECK_EQ(peer.receive(9), "question\n");
  peer.send("answer\n");
  char line[32];
  CHECK_TRUE(fgets(line, sizeof line, in) != nullptr);
  CHECK_EQ(std::string(line), "answer\n");
  CHECK_EQ(fclose(in), 0);
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("the end of the stream and nothing else sets feof") {
  auto [fd, peer] = connect_peer(where);
  FILE* f = open_stream(fd, "r");
  peer.send("x");
  CHECK_EQ(fgetc(f), 'x');
  CHECK_TRUE(!feof(f));
  peer.close();
  CHECK_EQ(fgetc(f), EOF);
  CHECK_TRUE(feof(f));
  CHECK_TRUE(!ferror(f));
}

TEST_EVERYWHERE("setvbuf decides when bytes leave") {
  auto [fd, peer] = connect_peer(where);
  FILE* f = open_stream(fd, "w");
  CHECK_EQ(setvbuf(f, nullptr, _IONBF, 0), 0);
  fputs("at once", f);
  CHECK_EQ(peer.receive(7), "at once");
  FILE* lines = open_stream(CHECK_OK(dup(fd)), "w");
  CHECK_EQ(setvbuf(lines, nullptr, _IOLBF, 4096), 0);
  fputs("line\nrest", lines);
  CHECK_EQ(peer.receive(5), "line\n");
  fflush(lines);
  CHECK_EQ(peer.receive(4), "rest");
}

TEST_EVERYWHERE("fwrite and fread move 8 MiB") {
  auto [fd, peer] = connect_peer(where);
  constexpr size_t kTotal = 8 << 20;
  std::vector<char> block(kTotal);
  FILE* out = open_stream(CHECK_OK(dup(fd)), "w");
  fill_pattern(block.data(), kTotal, 0);
  peer.start_receiving(kTotal, 65536);
  CHECK_EQ(fwrite(block.data(), 1, kTotal, out), kTotal);
  CHECK_EQ(fflush(out), 0);
  CHECK_EQ(peer.finish(), 0);
  FILE* in = open_stream(fd, "r");
  peer.start_sending(kTotal, 30000);
  memset(block.data(), 0, kTotal);
  CHECK_EQ(fread(block.data(), 4, kTotal / 4, in), kTotal / 4);
  CHECK_TRUE(matches_pattern(block.data(), kTotal, 0));
  CHECK_EQ(peer.finish(), 0);
}

TEST_EVERYWHERE("wide characters go through a stream") {
  auto [fd, peer] = connect_peer(where);
  FILE* f = open_stream(fd, "r+");
  CHECK_TRUE(fwprintf(f, L"wide %d\n", 7) > 0);
  CHECK_EQ(fflush(f), 0);
  CHECK_EQ(peer.receive(7), "wide 7\n");
  peer.send("back\n");
  wchar_t line[16];
  CHECK_TRUE(fgetws(line, 16, f) != nullptr);
  CHECK_TRUE(wcscmp(line, L"back\n") == 0);
  CHECK_EQ(fclose(f), 0);
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("writing to a stream that the peer has reset gives EPIPE or ECONNRESET") {
  auto [fd, peer] = connect_peer(where);
  on_signal(SIGPIPE, SIG_IGN);
  FILE* f = open_stream(fd, "w");
  setvbuf(f, nullptr, _IONBF, 0);
  peer.reset();
  while (fputc('x', f) != EOF) {
  }
  CHECK_TRUE(errno == EPIPE || errno == ECONNRESET);
  CHECK_TRUE(ferror(f));
}

TEST_EVERYWHERE("SIGPIPE comes for a stream") {
  auto [fd, peer] = connect_peer(where);
  on_signal(SIGPIPE, count_signal);
  FILE* f = open_stream(fd, "w");
  shutdown(fd, SHUT_WR);
  fputs("x", f);
  CHECK_EQ(fflush(f), EOF);
  CHECK_EQ(errno, EPIPE);
  CHECK_EQ(signals_seen, 1);
}

TEST_EVERYWHERE("a signal ends fgetc with EINTR and the stream goes on") {
  auto [fd, peer] = connect_peer(where);
  on_signal(SIGUSR1, count_signal);
  FILE* f = open_stream(fd, "r");
  std::atomic<int> error{0};
  Worker reader([&] {
    CHECK_EQ(fgetc(f), EOF);
    error = errno;
  });
  reader.await_sleep();
  reader.signal_until_done(SIGUSR1);
  reader.join();
  CHECK_EQ(error, EINTR);
  clearerr(f);
  peer.send("y");
  CHECK_EQ(fgetc(f), 'y');
}

TEST_EVERYWHERE("a stream on a non-blocking connection gives EAGAIN") {
  auto [fd, peer] = connect_peer(where);
  set_nonblocking(fd);
  FILE* f = open_stream(fd, "r");
  CHECK_EQ(fgetc(f), EOF);
  CHECK_EQ(errno, EAGAIN);
  CHECK_TRUE(ferror(f));
  clearerr(f);
  peer.send("z");
  await(fd, POLLIN);
  CHECK_EQ(fgetc(f), 'z');
}

TEST_EVERYWHERE("a stream cannot seek on a connection") {
  auto [fd, peer] = connect_peer(where);
  FILE* f = open_stream(fd, "r+");
  CHECK_EQ(ftell(f), -1);
  CHECK_EQ(errno, ESPIPE);
  CHECK_EQ(fseek(f, 0, SEEK_SET), -1);
  CHECK_EQ(errno, ESPIPE);
}

TEST_EVERYWHERE("freopen puts a file in a connection's place") {
  auto [fd, peer] = connect_peer(where);
  FILE* f = open_stream(fd, "w");
  fputs("before", f);
  CHECK_TRUE(freopen("/dev/zero", "r", f) == f);
  CHECK_EQ(fileno(f), fd);
  CHECK_EQ(peer.receive(100), "before");
  CHECK_EQ(fgetc(f), 0);
  char byte = 1;
  CHECK_EQ(read(fd, &byte, 1), 1);
  CHECK_EQ(byte, 0);
}

TEST_EVERYWHERE("freopen of a connection without a name fails and closes it") {
  auto [fd, peer] = connect_peer(where);
  FILE* f = open_stream(fd, "r+");
  CHECK_TRUE(freopen(nullptr, "r", f) == nullptr);
  CHECK_TRUE(!is_open(fd));
  CHECK_EQ(peer.receive(1), "");
}

TEST_EVERYWHERE("dprintf writes more than any buffer holds") {
  auto [fd, peer] = connect_peer(where);
  std::string text(60000, 'a');
  CHECK_EQ(dprintf(fd, "%s%d", text.c_str(), 5), 60001);
  CHECK_EQ(peer.receive(60001), text + "5");
}

TEST_EVERYWHERE("standard output and perror go to a connection") {
  auto [fd, peer] = connect_peer(where);
  fflush(stdout);
  pid_t child = in_child([fd = fd] {
    CHECK_OK(dup2(fd, STDOUT_FILENO));
    CHECK_OK(dup2(fd, STDERR_FILENO));
    errno = ENOENT;
    perror("first");  // stderr has no orientation yet
    fprintf(stderr, "second\n");
    errno = EPERM;
    perror(nullptr);
    printf("third\n");
    fflush(stdout);
  });
  CHECK_EQ(wait_exit(child), 0);
  std::string wanted = "first: No such file or directory\nsecond\nOperation not permitted\nthird\n";
  CHECK_EQ(peer.receive(wanted.size()), wanted);
}

TEST_EVERYWHERE("streams on other files are not disturbed") {
  auto [fd, peer] = connect_peer(where);
  peer.send("x");
  FILE* f = tmpfile();
  CHECK_TRUE(f != nullptr);
  CHECK_EQ(fputs("to a file", f), 1);
  rewind(f);
  char text[32] = {};
  CHECK_EQ(fread(text, 1, sizeof text, f), 9);
  CHECK_EQ(std::string(text), "to a file");
  CHECK_EQ(fclose(f), 0);
  FILE* p = popen("echo from a command", "r");
  CHECK_TRUE(p != nullptr);
  CHECK_TRUE(fgets(text, sizeof text, p) != nullptr);
  CHECK_EQ(std::string(text), "from a command\n");
  CHECK_EQ(pclose(p), 0);
  CHECK_EQ(read_once(fd), "x");
}

TEST("what exit() flushes reaches the peer") {
  Listener listener = make_listener();
  fflush(stdout);
  pid_t child = CHECK_OK(fork());
  if (child == 0) {
    fputs("until the end", open_stream(connect_to(listener.port), "w"));
    exit(0);
  }
  int fd = CHECK_OK(accept(listener.fd, nullptr, nullptr));
  CHECK_EQ(read_to_end(fd), "until the end");
  CHECK_EQ(wait_exit(child), 0);
}

TEST("a shell talks over /dev/tcp") {
  Listener listener = make_listener();
  std::string script = "exec 3<>/dev/tcp/127.0.0.1/" + std::to_string(listener.port) +
                       "; echo hi >&3; read -u 3 line && [ \"$line\" = ho ] && printf '%s\\n' done >&3";
  pid_t shell = CHECK_OK(fork());
  if (shell == 0) {
    execlp("bash", "bash", "-c", script.c_str(), nullptr);
    _exit(127);
  }
  int fd = CHECK_OK(accept(listener.fd, nullptr, nullptr));
  CHECK_EQ(read_exactly(fd, 3), "hi\n");
  write_all(fd, "ho\n");
  CHECK_EQ(read_to_end(fd), "done\n");
  CHECK_EQ(wait_exit(shell), 0);
}
