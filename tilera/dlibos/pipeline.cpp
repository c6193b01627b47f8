// A run: all tiles of all pipelines on a mesh, a warm-up, the time that counts, and then until nothing is under way.
#include <algorithm>
#include <stdexcept>

#include "tilera/dlibos/tiles.h"

namespace sluice::tilera::dlibos {
namespace {

constexpr nocsim::Cycle kWatchdog = 50'000;
constexpr uint64_t kDrainCycles = 2'000'000, kLook = 1000;
// After the last reply, for the buffers that are handed back.
constexpr uint64_t kTrailCycles = 20'000;

class Chip {
 public:
  Chip(const Setting& setting, const Split& split)
      : pipelines_(make_pipelines(setting.mesh, split)), mail_(setting, pipelines_), mesh_(setting.mesh), run_{setting, mesh_} {
    mesh_.set_watchdog(kWatchdog);
    for (const Pipeline& p : pipelines_) {
      for (TileId t : p.tiles[kDriver]) programs_.push_back(std::make_unique<DriverProgram>(run_, t, p, split[kDriver]));
      for (TileId t : p.tiles[kStack]) programs_.push_back(std::make_unique<StackProgram>(run_, t, p));
      for (TileId t : p.tiles[kApplication]) programs_.push_back(std::make_unique<ApplicationProgram>(run_, t));
    }
    if (setting.has_coordinator()) programs_.push_back(std::make_unique<CoordinatorProgram>(run_, coordinator_of(setting.mesh)));
    for (auto& program : programs_)
      mesh_.start(program->here(), [this, &program](nocsim::Tile& tile) { program->be(tile, mail_); });
  }
  // Programs end before what they use.
  ~Chip() {
    for (auto& program : programs_) mesh_.stop(program->here());
  }

  Result measure(const Split& split) {
    Result r;
    advance(run_.setting.warm_up);
    const uint64_t sent = mail_.sent();
    std::vector<uint64_t> idle;
    for (auto& program : programs_) idle.push_back(program->idle());
    mesh_.network().reset_link_counts();
    run_.measures = true;
    advance(run_.setting.cycles);
    run_.measures = false;
    r.split = split;
    r.pipelines = uint32_t(pipelines_.size());
    r.cycles = run_.setting.cycles;
    r.requests = run_.requests;
    r.messages = mail_.sent() - sent;
    r.copied_bytes = run_.copied_bytes;
    r.latencies = std::move(run_.latencies);
    std::sort(r.latencies.begin(), r.latencies.end());
    for (std::size_t i = 0; i < programs_.size(); ++i) {
      const double waits = double(programs_[i]->idle() - idle[i]) / double(r.cycles);
      const double busy = std::clamp(1 - waits, 0.0, 1.0);
      if (is_coordinator(*programs_[i])) r.coordinator_busy = busy;
      else r.busy[programs_[i]->role()] += busy / split[programs_[i]->role()];
    }
    look_at_links(r);
    drain();
    r.refused = run_.refused;
    r.lost = run_.begun - run_.ended + mail_.sent() - mail_.taken();
    return r;
  }

 private:
  bool is_coordinator(const TileProgram& program) const {
    return run_.setting.has_coordinator() && program.here() == coordinator_of(mesh_.config());
  }
  void advance(uint64_t cycles) {
    const nocsim::Outcome outcome = mesh_.run(cycles);
    if (outcome.kind != nocsim::Outcome::Kind::kLimit) throw std::runtime_error(outcome.describe());
  }
  // Where everybody waits for a packet it is over, and the mesh calls it a deadlock.
  void drain() {
    run_.stops = true;
    for (uint64_t waited = 0; run_.begun != run_.ended && waited < kDrainCycles; waited += kLook)
      if (mesh_.run(kLook).kind != nocsim::Outcome::Kind::kLimit) return;
    mesh_.run(kTrailCycles);
  }
  void look_at_links(Result& r) {
    const nocsim::Config& mesh = mesh_.config();
    uint64_t most = 0, sum = 0, links = 0;
    for (nocsim::Node node = 0; node < nocsim::Node(mesh.nodes()); ++node)
      for (int port = 0; nocsim::is_link(port); ++port) {
        if (!mesh.holds(nocsim::step_from(mesh.place_of(node), port))) continue;
        const uint64_t count = mesh_.network().link_count(node, port);
        most = std::max(most, count);
        sum += count;
        ++links;
      }
    r.busiest_link = double(most) / double(r.cycles);
    r.mean_link = double(sum) / double(links) / double(r.cycles);
  }

  std::vector<Pipeline> pipelines_;
  Mail mail_;
  nocsim::Mesh mesh_;
  Run run_;
  std::vector<std::unique_ptr<TileProgram>> programs_;
};

}  // namespace

Result run(const Setting& setting, const Split& split) {
  if (split.sum() > setting.tiles()) throw std::invalid_argument("more tiles than the mesh has");
  return Chip(setting, split).measure(split);
}

}  // namespace sluice::tilera::dlibos
