#include "shm/records.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <string>

using namespace sluice::shm;

namespace {

std::string text_of(const Pieces<const std::byte>& p) {
  std::string text(reinterpret_cast<const char*>(p.first), p.first_bytes);
  return text.append(reinterpret_cast<const char*>(p.second), p.second_bytes);
}

// A ring of 16 bytes with one record in it from position `at` on.
struct Ring {
  std::byte bytes[16]{};
  void put(std::size_t at, const std::string& text) {
    Pieces<std::byte> record = pieces_at(bytes, sizeof bytes, at, kRecordHeaderBytes + text.size());
    put_record_length(record, text.size());
    for (std::size_t i = 0; i < text.size(); ++i) byte_at(record, kRecordHeaderBytes + i) = std::byte(text[i]);
  }
  Pieces<const std::byte> queued(std::size_t at, std::size_t n) const {
    return pieces_at<const std::byte>(bytes, sizeof bytes, at, n);
  }
};

}  // namespace

TEST_CASE("a record is read at every position of the ring, across its end too") {
  for (std::size_t at = 0; at < 16; ++at) {
    Ring r;
    r.put(at, "hello");
    Pieces<const std::byte> payload;
    REQUIRE(first_record(r.queued(at, 9), payload) == 0);
    CHECK(text_of(payload) == "hello");
    REQUIRE(first_record(r.queued(at, 16), payload) == 0);
    CHECK(text_of(payload) == "hello");
  }
}

TEST_CASE("a record of no bytes has a length and nothing else") {
  for (std::size_t at = 0; at < 16; ++at) {
    Ring r;
    r.put(at, "");
    Pieces<const std::byte> payload;
    REQUIRE(first_record(r.queued(at, 4), payload) == 0);
    CHECK(payload.bytes() == 0);
  }
}

TEST_CASE("a length that says more than there is breaks the protocol") {
  Ring r;
  Pieces<const std::byte> payload;
  r.put(0, "hello");
  CHECK(first_record(r.queued(0, 8), payload) == -EPROTO);
  CHECK(first_record(r.queued(0, 3), payload) == -EPROTO);
  std::memset(r.bytes, 0xff, sizeof r.bytes);
  CHECK(first_record(r.queued(0, 16), payload) == -EPROTO);
}

TEST_CASE("pieces are cut before, at and after the ring's end") {
  Ring r;
  for (std::size_t i = 0; i < 16; ++i) r.bytes[i] = std::byte('a' + i);
  for (std::size_t n = 0; n <= 10; ++n) {
    CHECK(text_of(only_first(r.queued(12, 10), n)) == std::string("mnopabcdef").substr(0, n));
    CHECK(text_of(without_first(r.queued(12, 10), n)) == std::string("mnopabcdef").substr(n));
  }
}

TEST_CASE("the largest record leaves its ring quiet") {
  CHECK(largest_record(4096) == 4096 - 1024 - 4);
  CHECK(kLargestRecord == (1 << 20) - 1028);
}
