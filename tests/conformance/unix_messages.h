// Messages of AF_UNIX with ancillary data, for tests.
#pragma once

#include <sys/socket.h>

#include <string>
#include <vector>

#include "harness.h"

namespace conformance {

struct Message {
  std::string bytes;
  std::vector<int> fds;
  std::vector<ucred> credentials;
  int flags = 0;
};

ssize_t try_send(int fd, const std::string& bytes, const std::vector<int>& fds, int flags = 0, const ucred* who = nullptr);
void send_with(int fd, const std::string& bytes, const std::vector<int>& fds);
Message receive(int fd, size_t limit = 100, int flags = 0, size_t room = 1024);

// A pipe with a word in it: what comes out shows which one it is.
struct Word {
  int in, out;
  explicit Word(const std::string& text);
};

std::string word_in(int fd);
int open_descriptors();

}  // namespace conformance
