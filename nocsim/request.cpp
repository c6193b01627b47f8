#include "nocsim/request.h"

namespace nocsim {
namespace {

constexpr uint64_t kRequest = 1, kReply = 2;
constexpr Cycle kLongest = 1'000'000;

class Recorder : public Tracer, public Watcher {
 public:
  Recorder(const RequestPlan& plan, RequestTrace& trace) : plan_(plan), trace_(trace) {}

  void moved(const Packet& packet, bool, Node node, int port, Cycle leaves,
             Cycle arrives) override {
    trace_.hops.push_back({packet.tag == kReply, node, port, leaves, arrives});
  }
  void did(Node tile, std::string_view what, Cycle from, Cycle to) override {
    if ((tile == plan_.client || tile == plan_.server) && from >= plan_.warmup)
      trace_.spans.push_back({tile, std::string(what), from, to});
  }

 private:
  const RequestPlan& plan_;
  RequestTrace& trace_;
};

void be_client(const RequestPlan& plan, RequestTrace& trace, Tile& tile) {
  tile.compute(plan.warmup);
  trace.begun = tile.mesh().cycle();
  tile.mark_packets(kRequest);
  tile.send(plan.server, 0, std::vector<uint64_t>(plan.request_words, 1));
  for (int i = 0; i < plan.reply_words; ++i) tile.receive(0);
  trace.ended = tile.mesh().cycle();
}

void be_server(const RequestPlan& plan, Tile& tile) {
  for (int i = 0; i < plan.request_words; ++i) tile.receive(0);
  tile.compute(plan.work);
  tile.mark_packets(kReply);
  tile.send(plan.client, 0, std::vector<uint64_t>(plan.reply_words, 2));
}

// Sends packets of three flits to other tiles of its kind, and takes what it gets in between.
void be_busy(const RequestPlan& plan, Tile& tile) {
  Random random(plan.seed, tile.id());
  const uint64_t threshold = (uint64_t{plan.background} << 32) / (3 * uint64_t{kFullRate});
  const auto nodes = static_cast<uint32_t>(plan.config.nodes());
  for (;;) {
    while (tile.available()) tile.receive(0);
    if (!random.chance(threshold * 2)) continue;  // each turn takes about two cycles
    const Node to = random.below(nodes);
    if (to != tile.id() && to != plan.client && to != plan.server) tile.send(to, 0, {3, 4});
  }
}

}  // namespace

RequestTrace trace_request(const RequestPlan& plan) {
  RequestTrace trace;
  Recorder recorder(plan, trace);
  Mesh mesh(plan.config);
  mesh.network().trace(&recorder);
  mesh.watch(&recorder);
  mesh.start(plan.client, [&](Tile& tile) { be_client(plan, trace, tile); });
  mesh.start(plan.server, [&](Tile& tile) { be_server(plan, tile); });
  if (plan.background)
    for (Node node = 0; node < static_cast<Node>(plan.config.nodes()); ++node)
      if (node != plan.client && node != plan.server)
        mesh.start(
            node, [&](Tile& tile) { be_busy(plan, tile); }, true);
  const Outcome outcome = mesh.run(plan.warmup + kLongest);
  trace.complete = outcome.kind == Outcome::Kind::kFinished;
  if (!trace.complete) trace.why = outcome.describe();
  return trace;
}

}  // namespace nocsim
