// What calls on a connection in shared memory return, beside what they return on one of the kernel's: two connections of
// the same kind, to a process with the shim and to one without. On both the same is done, and each call has to say the same.
#include <algorithm>

#include "shm/layout.h"
#include "tests/fuzz/mappings.h"
#include "tests/fuzz/supervisor.h"

namespace sluice::fuzz {
namespace {

class Comparison {
 public:
  Comparison(int ours, int kernels) : ours_{{ours, "ours"}, {}}, kernels_{{kernels, "them"}, {}} {}

  void run(Input& in) {
    Kind kind = Kind(in.byte() % kKinds);
    bool accept_here = in.flip();
    int credentials = kind != kTcp && accept_here && in.byte() % 4 == 0;
    for (Side* s : {&ours_, &kernels_}) {
      s->peer.renew();
      uint64_t before = accelerated_total();
      int fd = s->peer.meet(kind, accept_here, Manner::kCompared, listeners_);
      FUZZ_CHECK(accelerated_total() == before + (s == &ours_));
      // From the beginning, as bytes that were sent without are kept apart from those with; and whoever has connected gets a name then.
      if (credentials) FUZZ_CHECK(setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &credentials, sizeof credentials) == 0);
      s->peer.greet(fd);
      s->player.begin(fd, Manner::kCompared);
    }
    has_ended_ = false;
    is_tcp_ = kind == kTcp;
    said_.clear();
    while (!in.empty()) {
      uint8_t choice = in.byte();
      if (choice == 255 && !has_ended_ && may_end(kind)) end_peers(in), has_ended_ = true;
      else if (choice % 2 == 0 && !has_ended_) act_there(in);
      else act_here(in);
    }
    for (Side* s : {&ours_, &kernels_}) s->player.end();
  }

 private:
  struct Side {
    Counterpart peer;
    Player player;
  };
  struct Said {
    const char* where;
    Notes ours, kernels;
  };
  // As the shim counts them, for the coordinator.
  static uint64_t accelerated_total() {
    static const shm::ClientRegion* region = nullptr;
    if (region == nullptr) each_mapping([](const Mapping& m) {
      if (m.is_of("memfd:sluice-client")) region = reinterpret_cast<const shm::ClientRegion*>(m.base);
    });
    return region == nullptr ? 0 : region->counters[shm::kConnects] + region->counters[shm::kAccepts];
  }

  void act_here(Input& in) {
    Input again = in;
    uint64_t sent = kernels_.player.sent();
    ours_.player.act(in);
    kernels_.player.act(again);
    if (is_tcp_ && !has_ended_) settle([&] { return has_arrived(kernels_.peer.arrived(), kernels_.player.sent()); });
    if (is_tcp_ && has_ended_ && kernels_.player.sent() != sent) settle([&] { return kernels_.player.arrived() == Player::kOver; });
    compare("here", ours_.player.notes(), kernels_.player.notes());
  }
  void act_there(Input& in) {
    Input again = in;
    FUZZ_CHECK(ours_.peer.does(Order::kAct, in) && kernels_.peer.does(Order::kAct, again));
    if (is_tcp_) settle([&] { return has_arrived(kernels_.player.arrived(), kernels_.peer.sent()); });
    compare("there", ours_.peer.notes(), kernels_.peer.notes());
  }
  // What is sent over TCP may take a moment to arrive, when the kernel has much to do.
  static bool has_arrived(uint64_t arrived, uint64_t sent) {
    constexpr uint64_t kBytes = Player::kEnd - 1;
    return (arrived & kBytes) >= (sent & kBytes) && ((sent & Player::kEnd) == 0 || (arrived & Player::kEnd) != 0);
  }
  template <class Arrived>
  static void settle(Arrived&& arrived) {
    for (int i = 0; i < 1000 && !arrived(); ++i) usleep(100);
  }
  // Over TCP it makes a difference for whoever sends then whether the peer's end came before its reset, which is not known
  // when nobody has looked meanwhile.
  bool may_end(Kind kind) const {
    constexpr int64_t kShutdown = 10;  // Player::act
    return kind != kTcp || std::none_of(said_.begin(), said_.end(), [](const Said& s) {
      return strcmp(s.where, "there") == 0 && s.ours.values[0] == kShutdown && s.ours.count > 1;
    });
  }
  void end_peers(Input& in) {
    Input again = in;
    FUZZ_CHECK(ours_.peer.does(Order::kEnd, in) && kernels_.peer.does(Order::kEnd, again));
    if (is_tcp_) settle([&] { return (kernels_.player.arrived() & Player::kEnd) != 0; });
  }
  void compare(const char* where, const Notes& ours, const Notes& kernels) {
    said_.push_back({where, ours, kernels});
    if (ours == kernels) return;
    for (const Said& s : said_) print(s);
    FUZZ_CHECK(!"both say the same");
  }
  // The number of the operation (Player::act), and what its calls have said.
  static void print(const Said& s) {
    fprintf(stderr, "%s:", s.where);
    for (uint32_t i = 0; i < s.ours.count; ++i) fprintf(stderr, " %lld", static_cast<long long>(s.ours.values[i]));
    if (!(s.ours == s.kernels)) fprintf(stderr, "\nthe kernel:");
    for (uint32_t i = 0; i < s.kernels.count && !(s.ours == s.kernels); ++i) fprintf(stderr, " %lld", static_cast<long long>(s.kernels.values[i]));
    fprintf(stderr, "\n");
  }

  bool is_tcp_ = false, has_ended_ = false;
  Listeners listeners_;
  Side ours_, kernels_;
  std::vector<Said> said_;
};

Comparison* comparison = nullptr;

}  // namespace
}  // namespace sluice::fuzz

extern "C" int LLVMFuzzerInitialize(int*, char*** argv) {
  using namespace sluice::fuzz;
  int ours, kernels;
  if (!get_stages(ours, kernels)) supervise(*argv, {"ours", "them", false, "regions"});
  signal(SIGPIPE, SIG_IGN);
  comparison = new Comparison(ours, kernels);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, std::size_t n) {
  sluice::fuzz::Input in(bytes, n);
  sluice::fuzz::comparison->run(in);
  return 0;
}
