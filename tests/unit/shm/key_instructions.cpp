#include "shm/key_instructions.h"

#include <catch2/catch.hpp>
#include <vector>

using namespace sluice::shm;

namespace {

using Found = std::vector<std::pair<std::size_t, KeyInstruction>>;

Found in(const std::vector<std::uint8_t>& code) {
  Found found;
  find_key_instructions(code.data(), code.size(), [&](std::size_t at, KeyInstruction k) { found.push_back({at, k}); });
  return found;
}

}  // namespace

TEST_CASE("WRPKRU is found wherever it begins") {
  for (std::size_t at : {0, 1, 7, 61}) {
    std::vector<std::uint8_t> code(64, 0x90);
    code[at] = 0x0f, code[at + 1] = 0x01, code[at + 2] = 0xef;
    CHECK(in(code) == Found{{at, KeyInstruction::kWrpkru}});
  }
}

TEST_CASE("inside of another instruction too") {
  // mov $0xef010f00, %eax
  CHECK(in({0xb8, 0x00, 0x0f, 0x01, 0xef}) == Found{{2, KeyInstruction::kWrpkru}});
  CHECK(in({0x0f, 0x0f, 0x01, 0xef}) == Found{{1, KeyInstruction::kWrpkru}});
}

TEST_CASE("XRSTOR with every operand in memory, and no other of its group") {
  for (int modrm = 0; modrm < 256; ++modrm) {
    bool expected = (modrm >> 3 & 7) == 5 && modrm >> 6 != 3;  // with a register it is LFENCE
    Found found = in({0x0f, 0xae, std::uint8_t(modrm)});
    CHECK(found == (expected ? Found{{0, KeyInstruction::kXrstor}} : Found{}));
  }
}

TEST_CASE("what does not end within the code is none") {
  CHECK(in({}).empty());
  CHECK(in({0x0f}).empty());
  CHECK(in({0x0f, 0x01}).empty());
  CHECK(in({0x90, 0x0f, 0xae}).empty());
}

TEST_CASE("its neighbours are none") {
  CHECK(in({0x0f, 0x01, 0xee}).empty());  // RDPKRU
  CHECK(in({0x0f, 0x01, 0xd1}).empty());  // XSETBV
  CHECK(in({0x0f, 0xc7, 0x28}).empty());
}
