#include "monitor/policing.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

namespace sluice::monitor {

std::string Policing::start() {
  bool missing = !options_.policy_named && access(options_.policy.c_str(), F_OK) != 0;
  if (options_.policy.empty() || missing) return {};
  if (std::string problem = read_policy(options_.policy, file_); !problem.empty()) return problem;
  enforce();
  return {};
}

void Policing::reload() {
  if (options_.policy.empty()) return;
  bool missing = !options_.policy_named && access(options_.policy.c_str(), F_OK) != 0;
  PolicyFile old = std::move(file_);
  file_ = {};
  std::string problem = missing ? std::string() : read_policy(options_.policy, file_);
  if (!problem.empty()) {
    file_ = std::move(old);
    return spdlog::error("{}; the policy stays as it was", problem);
  }
  enforce();  // while the old table is still there
  if (missing) return spdlog::info("{} is gone: no policy", options_.policy);
  spdlog::info("{} read again: {} rules, {} limits", options_.policy, file_.table->rule_count, file_.table->limit_count);
}

// The number last: who sees it is judged by the new rules.
void Policing::enforce() {
  bool none = file_.table == nullptr || file_.table->is_empty();
  core_.set_policy(none ? nullptr : file_.table.get());
  number_ = number_ + 1 != 0 ? number_ + 1 : 1;
  directory_.set_policy(none ? 0 : number_);
}

}  // namespace sluice::monitor
