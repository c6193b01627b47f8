// The administrator's rules, as a flat table: who may listen and connect where, and how much a user may have.
//
// Filled from a file (../policy_file.h) or by a test, then only read. Lists are spans of two common pools, text is
// in a third, so that the table has no pointers and needs no memory of its own.
#pragma once

#include <cstdint>
#include <string_view>

namespace sluice::monitor::core {

enum class Verdict : uint8_t {
  kAllow,
  kKernel,  // not over shared memory; the kernel decides
  kDeny,    // fails
};

enum Operation : uint8_t { kListening = 1, kConnecting = 2 };

inline constexpr uint32_t kMaxRules = 256;
inline constexpr uint32_t kMaxLimits = 64;
inline constexpr uint32_t kMaxRanges = 2048;
inline constexpr uint32_t kMaxPatterns = 1024;
inline constexpr uint32_t kPolicyTextBytes = 1u << 16;
inline constexpr uint32_t kNoRule = ~0u;

// What somebody is about to do.
struct Attempt {
  Operation operation;
  uint32_t uid;
  std::string_view program;  // path of its executable; empty: not known
  uint16_t port;             // 0: a name of AF_UNIX
  std::string_view name;     // as in sun_path: an abstract one begins with a zero byte
};

// Whether a path is covered by a pattern: `?` is any byte but a slash, `*` any number of those, `**` any number of
// any bytes. A pattern that begins with `@` means an abstract name.
bool covers(std::string_view pattern, std::string_view path);

struct Policy {
  struct Range {
    uint32_t first, last;
  };
  // A list: `count` entries of a pool. None: whatever.
  struct Span {
    uint16_t first, count;
  };
  struct Pattern {
    uint32_t offset, bytes;  // of `text`
  };
  struct Rule {
    Verdict verdict;
    uint8_t operations;  // Operation bits
    Span uids, ports;        // of ranges
    Span programs, paths;    // of patterns
    uint32_t line;           // in the file
  };
  // What one user may have: each user that it is for has its own. 0: as much as there is.
  struct Limit {
    Span uids;
    uint32_t line;
    uint32_t clients;
    uint32_t connections;
    uint64_t bytes;
    uint32_t requests;  // per second
    uint32_t burst;     // requests that may come at once
  };

  uint32_t rule_count, limit_count, range_count, pattern_count, text_bytes;
  Rule rules[kMaxRules];
  Limit limits[kMaxLimits];
  Range ranges[kMaxRanges];
  Pattern patterns[kMaxPatterns];
  char text[kPolicyTextBytes];

  bool is_empty() const { return rule_count == 0 && limit_count == 0; }
  // The first rule that fits decides; nobody is refused for whom there is none. `rule`: which one, or kNoRule.
  Verdict decide(const Attempt& attempt, uint32_t& rule) const;
  // Null: none.
  const Limit* limit_of(uint32_t uid) const;
  uint32_t index(const Limit& l) const { return uint32_t(&l - limits); }

 private:
  bool fits(const Rule& rule, const Attempt& attempt) const;
  bool has(Span ranges_of, uint32_t value) const;
  bool has(Span patterns_of, std::string_view path) const;
};

}  // namespace sluice::monitor::core
