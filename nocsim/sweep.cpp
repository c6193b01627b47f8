#include "nocsim/sweep.h"

#include <algorithm>

#include "nocsim/latencies.h"

namespace nocsim {
namespace {

constexpr uint64_t kTagged = 1;
constexpr uint64_t kLongestPeriod = 100'000;

// What happened in some periods.
struct Tally {
  uint64_t latency_sum = 0;
  uint64_t packets = 0;
  uint64_t flits = 0;

  void add(const Tally& other) {
    latency_sum += other.latency_sum;
    packets += other.packets;
    flits += other.flits;
  }
};

// Do a / b and c / d differ by at most `percent` of the latter?
bool agree(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t percent) {
  __extension__ using Wide = unsigned __int128;
  const Wide left = Wide{a} * d, right = Wide{c} * b;
  return (left > right ? left - right : right - left) * 100 <= right * percent;
}

bool agree(const Tally& a, const Tally& b, uint64_t percent) {
  if (!a.packets || !b.packets) return a.packets == b.packets;
  return agree(a.latency_sum, a.packets, b.latency_sum, b.packets, percent) &&
         agree(a.flits, 1, b.flits, 1, percent);
}

class Measurement {
 public:
  Measurement(const SweepPlan& plan, Rate rate)
      : plan_(plan), network_(plan.config), sources_(network_, plan.traffic, plan.seed) {
    sources_.set_rate(rate);
    row_.rate = rate;
    const uint64_t wanted = uint64_t{plan.period_packets} * plan.traffic.packet_flits * kFullRate;
    const uint64_t made = uint64_t{rate} * plan.config.nodes();
    period_ = std::max<uint64_t>(plan.period,
                                 made ? std::min<uint64_t>(wanted / made, kLongestPeriod) : 0);
  }

  SweepRow run() {
    warm_up();
    row_.warmup_cycles = network_.cycle();
    window();
    drain();
    row_.latency_avg = tagged_.mean();
    row_.latency_p50 = tagged_.quantile(50);
    row_.latency_p99 = tagged_.quantile(99);
    row_.latency_max = tagged_.most();
    row_.packets = tagged_.count();
    row_.cycles = network_.cycle();
    row_.hops = network_.hops();
    const ZeroLoads least = zero_loads(plan_.config, plan_.traffic);
    if (tagged_.sum() * least.pairs > 10 * least.sum * tagged_.count()) row_.saturated = true;
    return std::move(row_);
  }

 private:
  void cycle() {
    network_.begin_cycle();
    network_.nodes_with_arrivals().for_each([&](Node node) {
      for_each_bit(network_.arrivals_at(node), [&](int vc) { receive(node, vc); });
    });
    sources_.run();
    network_.end_cycle();
  }

  void receive(Node node, int vc) {
    const Flit flit = network_.take(node, vc);
    ++now_.flits;
    if (!flit.is_tail()) return;
    const Packet& packet = network_.packets()[flit.packet()];
    const uint64_t latency =
        network_.cycle() - (plan_.latency_from_injection ? packet.injected : packet.created);
    now_.latency_sum += latency;
    ++now_.packets;
    if (packet.tag) tagged_.add(latency);
    network_.packets().destroy(flit.packet());
  }

  Tally period() {
    now_ = {};
    for (uint64_t i = 0; i < period_; ++i) cycle();
    return now_;
  }

  void warm_up() {
    Tally last = period();
    int alike = 0;
    for (uint32_t i = 1; alike < 3; ++i) {
      if (i >= plan_.most_warmup_periods) {
        row_.converged = false;
        return;
      }
      const Tally next = period();
      alike = agree(next, last, 5) ? alike + 1 : 0;
      last = next;
    }
  }

  void window() {
    const Cycle begun = network_.cycle();
    const uint64_t made = sources_.packets_made();
    network_.reset_link_counts();
    sources_.tag_with(kTagged);
    std::vector<Tally> periods;
    while (!settled(periods)) {
      if (periods.size() >= plan_.most_periods) {
        row_.converged = false;
        break;
      }
      periods.push_back(period());
    }
    sources_.tag_with(0);

    Tally all;
    for (const Tally& tally : periods) all.add(tally);
    const uint64_t offered = (sources_.packets_made() - made) * plan_.traffic.packet_flits;
    row_.window_cycles = network_.cycle() - begun;
    const double node_cycles = static_cast<double>(row_.window_cycles) * plan_.config.nodes();
    row_.accepted = static_cast<double>(all.flits) / node_cycles;
    row_.offered = static_cast<double>(offered) / node_cycles;
    if (all.flits * 100 < offered * 95) row_.saturated = true;
    note_links();
  }

  bool settled(const std::vector<Tally>& periods) const {
    const size_t n = periods.size();
    if (n < plan_.least_periods || n % 2) return false;
    Tally halves[2];
    for (size_t i = 0; i < n; ++i) halves[i * 2 / n].add(periods[i]);
    return agree(halves[0], halves[1], 2);
  }

  void note_links() {
    for (Node node = 0; node < static_cast<Node>(plan_.config.nodes()); ++node)
      for (int port = 0; port < kPorts; ++port)
        if (!is_link(port) || plan_.config.holds(step_from(plan_.config.place_of(node), port)))
          row_.links.push_back({node, port,
                                static_cast<double>(network_.link_count(node, port)) /
                                    static_cast<double>(row_.window_cycles)});
  }

  void drain() {
    for (uint32_t i = 0; tagged_.count() < sources_.packets_tagged(); ++i) {
      if (i >= plan_.most_drain_periods) {
        row_.saturated = true;
        row_.converged = false;
        return;
      }
      for (uint64_t k = 0; k < period_ && tagged_.count() < sources_.packets_tagged(); ++k) cycle();
    }
  }

  const SweepPlan& plan_;
  Network network_;
  Sources sources_;
  Latencies tagged_;
  Tally now_;
  uint64_t period_ = 0;
  SweepRow row_;
};

}  // namespace

SweepRow measure(const SweepPlan& plan, Rate rate) { return Measurement(plan, rate).run(); }

std::vector<SweepRow> sweep(const SweepPlan& plan,
                            const std::function<void(const SweepRow&)>& each) {
  std::vector<SweepRow> rows;
  for (Rate rate : plan.rates) {
    rows.push_back(measure(plan, rate));
    if (each) each(rows.back());
  }
  return rows;
}

ZeroLoads zero_loads(const Config& config, const Traffic& traffic) {
  const auto nodes = static_cast<Node>(config.nodes());
  const bool any = traffic.pattern == Pattern::kUniform || traffic.pattern == Pattern::kHotspot;
  ZeroLoads loads;
  Random random;
  const auto add = [&](Node from, Node to) {
    loads.sum += zero_load_latency(config, from, to, traffic.packet_flits);
    ++loads.pairs;
  };
  for (Node from = 0; from < nodes; ++from) {
    if (!any) add(from, destination(traffic, config, from, random));
    for (Node to = 0; any && to < nodes; ++to)
      if (to != from) add(from, to);
  }
  return loads;
}

}  // namespace nocsim
