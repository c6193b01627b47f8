#include "monitor/core/policy.h"

namespace sluice::monitor::core {

// ---- patterns ---------------------------------------------------------------------------

namespace {

// Where to go on when the rest does not fit: one more byte for the last star.
struct Star {
  std::size_t pattern = 0, path = 0;
  bool set = false;
  bool take_one(std::string_view text, bool slashes, std::size_t& p, std::size_t& t) {
    if (!set || path >= text.size() || (!slashes && text[path] == '/')) return false;
    ++path;
    p = pattern;
    t = path;
    return true;
  }
};

// Never back to a star before the last of its kind: what comes between them was found as early as possible.
bool covers_bytes(std::string_view pattern, std::string_view text) {
  Star one, two;
  std::size_t p = 0, t = 0;
  while (p < pattern.size() || t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      bool twice = p + 1 < pattern.size() && pattern[p + 1] == '*';
      p += twice ? 2 : 1;
      (twice ? two : one) = {p, t, true};
      if (twice) one.set = false;
      continue;
    }
    bool any = p < pattern.size() && pattern[p] == '?' && t < text.size() && text[t] != '/';
    if (any || (p < pattern.size() && t < text.size() && pattern[p] == text[t])) {
      ++p;
      ++t;
      continue;
    }
    if (one.take_one(text, false, p, t)) continue;
    one.set = false;
    if (!two.take_one(text, true, p, t)) return false;
  }
  return true;
}

}  // namespace

bool covers(std::string_view pattern, std::string_view path) {
  if (path.empty() || pattern.empty()) return false;
  bool abstract = path[0] == 0;
  if (abstract != (pattern[0] == '@')) return false;
  return abstract ? covers_bytes(pattern.substr(1), path.substr(1)) : covers_bytes(pattern, path);
}

// ---- rules ------------------------------------------------------------------------------

bool Policy::has(Span span, uint32_t value) const {
  if (span.count == 0) return true;
  for (uint32_t i = span.first; i < uint32_t{span.first} + span.count; ++i)
    if (ranges[i].first <= value && value <= ranges[i].last) return true;
  return false;
}

bool Policy::has(Span span, std::string_view path) const {
  if (span.count == 0) return true;
  for (uint32_t i = span.first; i < uint32_t{span.first} + span.count; ++i)
    if (covers({text + patterns[i].offset, patterns[i].bytes}, path)) return true;
  return false;
}

// Of a rule with ports and paths either may be meant; one with neither is about everything.
bool Policy::fits(const Rule& r, const Attempt& a) const {
  if ((r.operations & a.operation) == 0 || !has(r.uids, a.uid)) return false;
  bool somewhere = r.ports.count != 0 || r.paths.count != 0;
  bool there = a.port != 0 ? r.ports.count != 0 && has(r.ports, a.port) : r.paths.count != 0 && has(r.paths, a.name);
  if (somewhere && !there) return false;
  return has(r.programs, a.program);
}

Verdict Policy::decide(const Attempt& attempt, uint32_t& rule) const {
  for (rule = 0; rule < rule_count; ++rule)
    if (fits(rules[rule], attempt)) return rules[rule].verdict;
  rule = kNoRule;
  return Verdict::kAllow;
}

const Policy::Limit* Policy::limit_of(uint32_t uid) const {
  for (uint32_t i = 0; i < limit_count; ++i)
    if (has(limits[i].uids, uid)) return &limits[i];
  return nullptr;
}

}  // namespace sluice::monitor::core
