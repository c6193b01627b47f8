#include "unix_records.h"

#include <sys/socket.h>
#include <unistd.h>

namespace conformance {

UnixPair record_pair(const std::string& name) { return unix_pair(name, SOCK_SEQPACKET); }

void meet_for_records(Where where, const std::string& name, const std::function<void(int)>& client,
                      const std::function<void(int)>& server) {
  meet(where, name, client, server, SOCK_SEQPACKET);
}

void put(int fd, const std::string& record) { CHECK_EQ(send(fd, record.data(), record.size(), 0), record.size()); }

std::string take(int fd) {
  thread_local std::string room(2 << 20, '\0');
  ssize_t n = CHECK_OK(recv(fd, room.data(), room.size(), 0));
  return room.substr(0, size_t(n));
}

std::string pattern(int number, size_t size) {
  std::string record(size, '\0');
  for (size_t i = 0; i < size; ++i) record[i] = char(size_t(number) * 131 + i * 7 + i / 251);
  return record;
}

size_t record_size(int number, size_t most) {
  if (number % 10 == 3) return 0;
  if (number % 10 == 7) return size_t(number) % 5 + 1;
  return size_t(number) * 7919 % most + 1;
}

void send_records(int fd, int count, size_t most) {
  for (int i = 0; i < count; ++i) put(fd, pattern(i, record_size(i, most)));
}

void receive_records(int fd, int count, size_t most) {
  for (int i = 0; i < count; ++i) {
    std::string record = take(fd);
    CHECK_EQ(record.size(), record_size(i, most));
    CHECK_TRUE(record == pattern(i, record.size()));
  }
  CHECK_EQ(take(fd), "");
}

}  // namespace conformance
