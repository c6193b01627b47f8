// The shim itself, in a program that uses one connection in every way, against a peer that lies: an ordinary program with the
// shim (shim_peer.cpp), whose shared memory this target changes in its place, between two calls or at any edge inside of one.
//
// The coordinator is a real one, with --protect=none: then the memory that peers write can be made writable here. Each case
// has a new peer. Whatever that one says, calls return, and say nothing that cannot be; a connection to somebody else
// goes on; and as long as nobody lies every byte is the one that was sent.
#include <algorithm>

#include "shm/layout.h"
#include "tests/fuzz/mappings.h"
#include "tests/fuzz/scribbler.h"
#include "tests/fuzz/supervisor.h"

namespace sluice::fuzz {
namespace {

constexpr uint32_t kMostEdges = 4096;   // of a call

// ---- what changes at an edge --------------------------------------------------------------

class World;
World* striking = nullptr;
uint32_t edges_left = 0;

// ---- the target ---------------------------------------------------------------------------

class World {
 public:
  World(int hostile, int bystander) : hostile_(hostile, "hostile"), bystander_(bystander, "aside") {
    bystander_.renew();
    aside_ = bystander_.meet(kTcp, true, Manner::kTame, listeners_);
    FUZZ_CHECK(aside_ >= 0 && readable_regions().size() == 1);
  }

  void run(Input& in) {
    Kind kind = Kind(in.byte() % kKinds);
    uint8_t way = in.byte();
    is_tame_ = way % 8 < 2 && kind != kRecords;  // of those what is not asked for is lost
    Manner manner = is_tame_ ? Manner::kTame : Manner::kAny;
    dead_.clear();
    for (const Region& r : readable_regions()) dead_.push_back(r.writer());
    hostile_.renew();
    int fd = hostile_.meet(kind, way & 8, manner, listeners_);
    await_region(fd);
    player_.begin(fd, manner);
    while (!in.empty()) step(in);
    if (way & 16) hostile_.does(Order::kEnd, in);
    player_.end();
    ask_bystander();
  }
  void strike() {
    edges_left = 0;
    const auto& regions = regions_;
    if (regions.empty()) return;
    const Region& r = regions[regions.size() == 1 ? 0 : in_->below(uint32_t(regions.size()))];
    auto& header = *reinterpret_cast<shm::PairHeader*>(r.base);
    shm::DomainId writer = header.writer;
    Scribbler(*in_).scribble(r.base, shm::kPairBytes);
    header.writer = writer;  // by which this target knows it
    if (is_during_ && in_->byte() % 2 == 0) edges_left = some_edges(*in_);
  }

 private:
  struct Region {
    std::byte* base;
    shm::DomainId writer() const { return reinterpret_cast<shm::PairHeader*>(base)->writer; }
  };

  // ---- the connection
  // That of an accepting peer comes by way of the coordinator. There has to be one: else the kernel has the connection.
  void await_region(int fd) {
    for (int i = 0; i < int(kPatienceMs) && their_regions().empty(); ++i) {
      pollfd p{fd, POLLIN, 0};
      FUZZ_CHECK(poll(&p, 1, 1) == 0);
    }
    FUZZ_CHECK(!their_regions().empty());
  }
  void ask_bystander() {
    Input nothing(nullptr, 0);
    FUZZ_CHECK(bystander_.does(Order::kPing, nothing));
    char byte = 0;
    FUZZ_CHECK(recv(aside_, &byte, 1, 0) == 1 && byte == 'p');
  }

  // ---- a case
  void step(Input& in) {
    uint8_t choice = in.byte() % 8;
    if (choice < 2 && !is_tame_) return choice == 0 ? lie(in) : lie_during(in);
    if (choice < 4) return (void)hostile_.does(Order::kAct, in);
    player_.act(in);
  }
  void lie(Input& in) {
    regions_ = their_regions();
    in_ = &in;
    strike();
  }
  // Near ones mostly, as most calls have a few hundred.
  static uint32_t some_edges(Input& in) {
    uint32_t most = kMostEdges >> in.byte() % 8;
    return 1 + uint32_t(in.word(2)) % most;
  }
  void lie_during(Input& in) {
    regions_ = their_regions();
    in_ = &in;
    uint32_t edges = some_edges(in);
    Input later = in;  // so the call is the same with and without
    striking = this;
    is_during_ = true;
    edges_left = edges;
    player_.act(later);
    is_during_ = false;
    if (edges_left != 0) strike();
  }

  // ---- regions
  static std::vector<Region> readable_regions() {
    std::vector<Region> found;
    each_mapping([&](const Mapping& m) {
      if (m.bytes != shm::kPairBytes || !m.is_of("memfd:sluice-pa")) return;  // a pair's, or one for passing
      if (Region r{m.base}; m.is_of("memfd:sluice-passed") || r.writer() != own_domain()) found.push_back(r);
    });
    return found;
  }
  // Of this case's peer; can be written from now on. Not the bystander's, nor those of peers that are not forgotten yet.
  std::vector<Region> their_regions() const {
    std::vector<Region> found;
    for (const Region& r : readable_regions()) {
      if (std::find(dead_.begin(), dead_.end(), r.writer()) != dead_.end()) continue;
      if (mprotect(r.base, shm::kPairBytes, PROT_READ | PROT_WRITE) == 0) found.push_back(r);
    }
    return found;
  }
  // As the regions have it: all that this process writes have it as their writer.
  static uint32_t own_domain() {
    static uint32_t own = 0;
    if (own != 0) return own;
    each_mapping([](const Mapping& m) {
      if (m.writable && m.bytes == shm::kPairBytes && m.is_of("memfd:sluice-pair")) own = Region{m.base}.writer();
    });
    FUZZ_CHECK(own != 0);
    return own;
  }

  Listeners listeners_;
  Counterpart hostile_, bystander_;
  Player player_;
  int aside_ = -1;
  std::vector<Region> regions_;
  std::vector<shm::DomainId> dead_;  // and the bystander
  Input* in_ = nullptr;
  bool is_tame_ = false, is_during_ = false;
};

World* world = nullptr;

}  // namespace
}  // namespace sluice::fuzz

extern "C" void fuzz_edge() {
  using namespace sluice::fuzz;
  if (edges_left != 0 && --edges_left == 0) striking->strike();
}

extern "C" int LLVMFuzzerInitialize(int*, char*** argv) {
  using namespace sluice::fuzz;
  int hostile, bystander;
  if (!get_stages(hostile, bystander)) supervise(*argv, {"hostile", "aside", true, "none"});
  signal(SIGPIPE, SIG_IGN);
  world = new World(hostile, bystander);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, std::size_t n) {
  sluice::fuzz::Input in(bytes, n);
  sluice::fuzz::world->run(in);
  return 0;
}
