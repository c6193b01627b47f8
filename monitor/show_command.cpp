#include "monitor/show_command.h"

#include <stdio.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "monitor/coordinator_link.h"
#include "monitor/run_directory.h"

namespace sluice::monitor {
namespace {

using Json = nlohmann::ordered_json;

// Returns whether there is an answer; otherwise has said why not.
bool ask_or_complain(const ShowOptions& o, shm::PacketType request, std::string& text) {
  Answer answer = ask(o.directory, request);
  if (answer.outcome != Outcome::kAnswered)
    fprintf(stderr, "sluice: %s\n", explain(answer.outcome, o.directory).c_str());
  text = std::move(answer.text);
  return answer.outcome == Outcome::kAnswered;
}

Json parse(const std::string& text) { return Json::parse(text, nullptr, false); }

std::string text_of(const Json& j, const char* key) {
  auto value = j.find(key);
  if (value == j.end()) return "?";
  return value->is_string() ? value->get<std::string>() : value->dump();
}

void print_row(const char* name, const std::string& value) {
  printf("%-22s %s\n", name, value.c_str());
}

// "name 3, other 1", leaving out what is zero.
std::string text_of_counts(const Json& counts) {
  std::string text;
  for (auto& [name, n] : counts.items()) {
    if (n == 0) continue;
    text += (text.empty() ? "" : ", ") + name + " " + n.dump();
  }
  return text.empty() ? "none" : text;
}

std::string kibibytes(const Json& bytes) {
  return std::to_string(bytes.get<uint64_t>() / 1024) + " KiB";
}

void print_clients(const Json& clients) {
  if (clients.empty()) return;
  printf("\n%8s %8s %6s %8s %10s %10s  %s\n", "DOMAIN", "PID", "UID", "OPEN", "CONNECTS", "ACCEPTS",
         "COMMAND");
  for (const Json& c : clients)
    printf("%8s %8s %6s %8s %10s %10s  %s\n", text_of(c, "domain").c_str(),
           text_of(c, "pid").c_str(), text_of(c, "uid").c_str(), text_of(c, "open").c_str(),
           text_of(c, "connects").c_str(), text_of(c, "accepts").c_str(),
           text_of(c, "command").c_str());
}

// Rules and limits that have refused something; those of another user's coordinator it does not tell.
void print_policy(const Json& policy) {
  if (policy.is_null()) return print_row("policy", "none");
  bool all = policy.contains("file");
  print_row("policy", (all ? text_of(policy, "file") + ": " + std::to_string(policy["rules"].size()) + " rules, " +
                                 std::to_string(policy["limits"].size()) + " limits; "
                           : std::string()) + "refused " + text_of(policy, "refused_total"));
  if (!all) return;
  for (const Json& r : policy["rules"])
    if (r["refused"] != 0)
      print_row("", "line " + text_of(r, "line") + ", " + text_of(r, "action") + ": " + text_of(r, "refused") + "  " + text_of(r, "name"));
  for (const Json& l : policy["limits"])
    if (std::string counts = text_of_counts(l["refused"]); counts != "none") print_row("", "line " + text_of(l, "line") + ", limit: " + counts);
}

void print_status(const Json& j) {
  print_row("coordinator", "sluiced " + text_of(j, "version") + ", pid " + text_of(j, "pid") +
                               ", up " + text_of(j, "uptime_s") + " s");
  print_row("directory", text_of(j, "directory"));
  print_row("mode", "queues " + text_of(j, "queues") + ", poll " + text_of(j, "poll") +
                        ", protect " + text_of(j, "protect"));
  if (j["keyed"] != 0)
    print_row("with keys", text_of(j, "keyed") + " processes, " + text_of(j, "key_instructions") + " instructions that change rights");
  if (text_of(j, "queues") == "auto")
    print_row("queues, now", text_of_counts(j["queues_now"]) + ": " + text_of(j, "queues_why"));
  print_row("clients", text_of(j, "clients"));
  print_row("listeners", text_of(j, "listeners"));
  print_row("connections", text_of(j, "connections"));
  print_row("accelerated, total", text_of(j, "accelerated_total") + " (" +
                                      text_of(j, "granted_total") + " without asking)");
  print_row("on the kernel, total", text_of_counts(j["fallback_total"]));
  print_row("kernel accepts, total", text_of(j, "kernel_accepts_total"));
  print_row("requests, total", text_of_counts(j["requests_total"]));
  print_row("bells, total", text_of(j, "bells_total"));
  print_row("resets, total", text_of(j, "resets_total"));
  print_row("regions", text_of(j, "regions") + ", " + kibibytes(j["region_bytes"]));
  print_policy(j.value("policy", Json()));
  print_clients(j["clients_detail"]);
}

std::string text_of_process(const Json& socket, const char* key) {
  auto p = socket.find(key);
  return p == socket.end() ? "" : text_of(*p, "command") + "/" + text_of(*p, "pid");
}

void print_socket(const Json& s) {
  printf("%-11s %8s %8s %28s %28s  %-20s %s\n", text_of(s, "state").c_str(),
         text_of(s, "recv_q").c_str(), text_of(s, "send_q").c_str(), text_of(s, "local").c_str(),
         text_of(s, "peer").c_str(), text_of_process(s, "process").c_str(),
         text_of_process(s, "peer_process").c_str());
}

}  // namespace

int show_status(const ShowOptions& o) {
  std::string text;
  if (!ask_or_complain(o, shm::kStatus, text)) return 1;
  Json j = parse(text);
  if (o.json)
    puts(j.dump(2).c_str());
  else
    print_status(j);
  return 0;
}

int show_sockets(const ShowOptions& o) {
  std::string text;
  if (!ask_or_complain(o, shm::kSockets, text)) return 1;
  Json chosen = Json::array();
  for (const Json& s : parse(text))
    if (o.all || (text_of(s, "state") == "LISTEN") == o.listening) chosen.push_back(s);
  if (o.json) {
    puts(chosen.dump(2).c_str());
    return 0;
  }
  printf("%-11s %8s %8s %28s %28s  %-20s %s\n", "State", "Recv-Q", "Send-Q", "Local Address:Port",
         "Peer Address:Port", "Process", "Peer Process");
  for (const Json& s : chosen) print_socket(s);
  return 0;
}

int stop_coordinator(const ShowOptions& o) {
  std::string text;
  if (!ask_or_complain(o, shm::kStop, text)) return 1;
  // It has promised; it is gone when another could start in its place.
  for (int i = 0; i < 500; ++i) {
    if (lock_directory(o.directory)) return 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  fprintf(stderr, "sluice: the coordinator in %s does not end\n", o.directory.c_str());
  return 1;
}

}  // namespace sluice::monitor
