#include "monitor/bench/bench_command.h"

#include <stdio.h>

#include "monitor/bench/bench_dlibos.h"
#include "monitor/bench/bench_limits.h"
#include "monitor/bench/bench_requests.h"
#include "monitor/bench/script.h"

namespace sluice::monitor::bench {
namespace {

constexpr uint32_t kMostClients = 10000, kMostDepth = 64, kMostBytes = 64 << 20;

// 12, 4K or 2M; 0 if it is none of these.
uint32_t number_in(std::string word) {
  uint64_t unit = word.ends_with('K') ? 1 << 10 : word.ends_with('M') ? 1 << 20 : 1;
  if (unit != 1) word.pop_back();
  if (word.empty() || word.size() > 9 || word.find_first_not_of("0123456789") != std::string::npos) return 0;
  uint64_t number = std::stoull(word) * unit;
  return number <= UINT32_MAX ? uint32_t(number) : 0;
}

// "1,2,4,...,256": where three dots stand the number before them is doubled. Empty if it is no such list.
std::vector<uint32_t> numbers_in(const std::string& text, uint32_t most) {
  std::vector<uint32_t> numbers;
  bool dots = false;
  for (std::size_t at = 0; at <= text.size();) {
    std::size_t end = std::min(text.find(',', at), text.size());
    std::string word = text.substr(at, end - at);
    at = end + 1;
    if (word == "..." && !dots && !numbers.empty()) {
      dots = true;
      continue;
    }
    uint32_t number = number_in(word);
    if (number == 0 || number > most || (dots && number < numbers.back())) return {};
    while (dots && numbers.back() * 2 < number) numbers.push_back(numbers.back() * 2);
    dots = false;
    numbers.push_back(number);
  }
  return dots ? std::vector<uint32_t>() : numbers;
}

CLI::Validator list_up_to(uint32_t most) {
  return CLI::Validator(
      [most](std::string& text) {
        return numbers_in(text, most).empty() ? "not a list of numbers from 1 to " + std::to_string(most) : std::string();
      },
      "N,N,...,N");
}

}  // namespace

struct BenchCommand::Parsed {
  RequestsOptions requests;
  std::string clients = "1,2,4,8", active, depths = "1";
  LimitsOptions limits;
  DlibosOptions dlibos;
  std::string sizes = "1,8,64,512,4K,32K,256K,2M,16M";
};

BenchCommand::BenchCommand(CLI::App& app) : parsed_(std::make_unique<Parsed>()) {
  bench_ = app.add_subcommand("bench", "measure the coordinator and the connections on this machine");
  bench_->require_subcommand(1);
  add_requests();
  add_limits();
  add_dlibos();
  // What they are given is the script's, --help too.
  for (const Script& script : kScripts)
    scripts_.push_back(bench_->add_subcommand(script.name, script.what)->prefix_command());
  for (CLI::App* script : scripts_) script->set_help_flag();
}

void BenchCommand::add_limits() {
  LimitsOptions& o = parsed_->limits;
  limits_ = bench_->add_subcommand("limits", "what the machine itself can do: a cache line to and fro, a plain ring, memcpy");
  limits_->add_option("--sizes", parsed_->sizes, "of messages in bytes, a list; K and M are 1024 and its square")
      ->check(list_up_to(kMostBytes))
      ->capture_default_str();
  limits_->add_option("--cpu", o.cpu, "of the one who sends; default: any");
  limits_->add_option("--peer-cpu", o.peer_cpu, "of the one who receives; default: any");
  limits_->add_option("--seconds", o.seconds, "of one measurement")->check(CLI::Range(0.001, 3600.0))->capture_default_str();
  limits_->add_option("--json", o.json, "write an array of rows to this file; - for standard output, instead of the table");
}

void BenchCommand::add_requests() {
  RequestsOptions& o = parsed_->requests;
  o.queues = {"divided", "shared"};
  o.poll = "busy";
  requests_ = bench_->add_subcommand("requests", "requests/s and round trips at the coordinator, and what they cost");
  requests_->add_option("--queues", o.queues, "kinds of queue to compare, in alternating rounds; noc: over a simulated network-on-chip")
      ->delimiter(',')
      ->check(CLI::IsMember({"divided", "shared", "auto", "noc"}))
      ->default_str("divided,shared");
  requests_->add_option("--clients", parsed_->clients, "registered client processes, a list; three dots go on doubling")
      ->check(list_up_to(kMostClients))
      ->capture_default_str();
  requests_->add_option("--active", parsed_->active, "how many of them make requests, a list; default: all")
      ->check(list_up_to(kMostClients));
  requests_->add_option("--depth", parsed_->depths, "requests that each active client has under way, a list")
      ->check(list_up_to(kMostDepth))
      ->capture_default_str();
  requests_->add_option("--rate", o.rates, "also an open loop with so many requests/s in all, a list")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  requests_->add_option("--flooders", o.flooders,
                        "so many of the active clients send as much as fits; latencies are those of the others");
  requests_->add_flag("--by-turns", o.by_turns,
                      "one process is all of the clients and lets each active one in turn make a request: what those "
                      "wait for that speak seldom");
  requests_->add_option("--poll", o.poll, "how the coordinator waits")
      ->check(CLI::IsMember({"busy", "adaptive"}))
      ->capture_default_str();
  requests_->add_option("--seconds", o.seconds, "of one run")->check(CLI::Range(0.01, 3600.0))->capture_default_str();
  requests_->add_option("--rounds", o.rounds, "alternating rounds, of which the medians are told")
      ->check(CLI::Range(1u, 1000u))
      ->capture_default_str();
  requests_->add_option("--coordinator-cpu", o.coordinator_cpu, "default: the last CPU");
  requests_->add_option("--client-cpu", o.client_cpu, "default: the first CPU");
  requests_->add_option("--json", o.json, "write an array of rows to this file; - for standard output, instead of the table");
}

void BenchCommand::add_dlibos() {
  DlibosOptions& o = parsed_->dlibos;
  o.meshes = {"6x6"};
  o.queues = {"noc"};
  o.protection = {"on", "off"};
  o.cycles = 400'000;
  o.warm_up = 100'000;
  dlibos_ = bench_->add_subcommand("dlibos", "driver, stack and application tiles of a simulated chip: requests/s by how they are split");
  auto list = [&](const char* name, std::vector<std::string>& value, const char* what, const char* preset) {
    return dlibos_->add_option(name, value, what)->delimiter(',')->default_str(preset);
  };
  list("--workload", o.workloads, "what is served; --inputs has the names", "all");
  list("--mesh", o.meshes, "tiles of the chip, WxH, a list", "6x6");
  list("--queues", o.queues, "between tiles, a list", "noc")->check(CLI::IsMember({"noc", "divided", "shared"}));
  list("--protection", o.protection, "RX, TX and application memory with one writer each, a list", "on,off")->check(CLI::IsMember({"on", "off"}));
  dlibos_->add_option("--hand-back", o.hand_back, "how buffers come back, protected")
      ->check(CLI::IsMember({"messages", "piggyback"}))
      ->capture_default_str();
  dlibos_->add_option("--spread", o.spread, "of a stack tile's requests over application tiles")
      ->check(CLI::IsMember({"random", "turns"}))
      ->capture_default_str();
  dlibos_->add_option("--requests-per-connection", o.requests_per_connection,
                      "after so many a stack tile asks the coordinator, who has a tile of the chip; default: connections last")
      ->check(CLI::Range(1u, 1'000'000u));
  dlibos_->add_option("--split", o.split, "D,S,A: driver, stack and application tiles; default: the best split, searched for");
  dlibos_->add_option("--by-role", o.by_role, "instead a row for each number of driver, stack or application tiles, the others split best");
  dlibos_->add_option("--most", o.most, "splits that a search simulates at most")->check(CLI::Range(1u, 100000u))->capture_default_str();
  dlibos_->add_option("--rate", o.rates, "requests/s that arrive, a list; default: the next one as soon as there is room")
      ->delimiter(',')
      ->check(CLI::Range(1.0, 1e9));
  dlibos_->add_option("--cost", o.costs, "NAME=CYCLES, a list: what a step of a request costs, see --inputs")->delimiter(',');
  dlibos_->add_option("--scale", o.scale, "by which the computing of driver, stack and application is multiplied")
      ->check(CLI::Range(0.01, 100.0))
      ->capture_default_str();
  dlibos_->add_flag("--round-trips", o.round_trips, "instead what a message costs over each kind of queue, by hops and senders");
  dlibos_->add_flag("--inputs", o.inputs, "say what is put in, and where each figure comes from; nothing is run");
  dlibos_->add_option("--cycles", o.cycles, "that are simulated, in a run")->check(CLI::Range(uint64_t(1000), uint64_t(1'000'000'000)))->capture_default_str();
  dlibos_->add_option("--warm-up", o.warm_up, "cycles before them")->check(CLI::Range(uint64_t(1), uint64_t(1'000'000'000)))->capture_default_str();
  dlibos_->add_option("--seed", o.seed, "of what is random")->capture_default_str();
  dlibos_->add_option("--plot", o.plot, "draw requests/s into this file, SVG");
  dlibos_->add_option("--json", o.json, "write an array of rows to this file; - for standard output, instead of the table");
  // Before anything is simulated.
  dlibos_->callback([this] {
    const std::string complaint = complaint_about(parsed_->dlibos);
    if (!complaint.empty()) throw CLI::ValidationError(complaint, 2);
  });
}

BenchCommand::~BenchCommand() = default;

bool BenchCommand::is_wanted() const { return bench_->parsed(); }

int BenchCommand::run() const {
  for (const CLI::App* script : scripts_)
    if (script->parsed()) return run_script(script->get_name(), script->remaining());
  if (limits_->parsed()) {
    LimitsOptions o = parsed_->limits;
    for (uint32_t size : numbers_in(parsed_->sizes, kMostBytes)) o.sizes_bytes.push_back(size);
    return bench_limits(o);
  }
  if (dlibos_->parsed()) return bench_dlibos(parsed_->dlibos);
  RequestsOptions o = parsed_->requests;
  o.clients = numbers_in(parsed_->clients, kMostClients);
  o.depths = numbers_in(parsed_->depths, kMostDepth);
  if (!parsed_->active.empty()) o.active = numbers_in(parsed_->active, kMostClients);
  return bench_requests(o);
}

}  // namespace sluice::monitor::bench
