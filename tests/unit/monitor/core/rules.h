// A policy made by hand, for tests of the core. Files are another matter: ../policy_file.cpp.
#pragma once

#include <cstring>
#include <initializer_list>
#include <memory>
#include <string_view>

#include "monitor/core/policy.h"

namespace sluice::monitor::core::test {

struct RuleOptions {
  Verdict verdict = Verdict::kDeny;
  uint8_t operations = kListening | kConnecting;
  std::initializer_list<Policy::Range> uids = {}, ports = {};
  std::initializer_list<std::string_view> programs = {}, paths = {};
};

struct LimitOptions {
  std::initializer_list<Policy::Range> uids = {};
  uint32_t clients = 0, connections = 0;
  uint64_t bytes = 0;
  uint32_t requests = 0, burst = 0;
};

class Rules {
 public:
  std::unique_ptr<Policy> table = std::make_unique<Policy>();

  Rules& rule(const RuleOptions& o) {
    table->rules[table->rule_count++] = {o.verdict,        o.operations,         ranges(o.uids), ranges(o.ports),
                                         patterns(o.programs), patterns(o.paths), 0};
    return *this;
  }
  Rules& limit(const LimitOptions& o) {
    table->limits[table->limit_count++] = {ranges(o.uids), 0, o.clients, o.connections, o.bytes, o.requests, o.burst};
    return *this;
  }
  operator const Policy*() const { return table.get(); }

 private:
  Policy::Span ranges(std::initializer_list<Policy::Range> list) {
    Policy::Span s{uint16_t(table->range_count), uint16_t(list.size())};
    for (Policy::Range r : list) table->ranges[table->range_count++] = r;
    return s;
  }
  Policy::Span patterns(std::initializer_list<std::string_view> list) {
    Policy::Span s{uint16_t(table->pattern_count), uint16_t(list.size())};
    for (std::string_view p : list) {
      memcpy(table->text + table->text_bytes, p.data(), p.size());
      table->patterns[table->pattern_count++] = {table->text_bytes, uint32_t(p.size())};
      table->text_bytes += uint32_t(p.size());
    }
    return s;
  }
};

}  // namespace sluice::monitor::core::test
