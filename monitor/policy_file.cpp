#include "monitor/policy_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <toml++/toml.h>

#include "monitor/descriptor.h"
#include "shm/layout.h"

namespace sluice::monitor {
namespace {

using core::Policy;

constexpr off_t kMostFileBytes = 1 << 20;
constexpr uint32_t kLargestUid = ~0u - 1;  // the one after it means none
constexpr uint32_t kMostRequests = 10'000'000;
constexpr std::string_view kRuleKeys = "action, name, operation, path, port, program, uid";
constexpr std::string_view kLimitKeys = "burst, bytes, clients, connections, requests_per_second, uid";

// A place and a reason.
struct Wrong {
  uint32_t line;
  std::string reason;
};

[[noreturn]] void fail(uint32_t line, std::string reason) { throw Wrong{line, std::move(reason)}; }

uint32_t line_of(const toml::node& n) { return uint32_t(n.source().begin.line); }

std::string quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }

bool is_listed(std::string_view key, std::string_view keys) {
  for (std::size_t at = 0; at < keys.size();) {
    std::size_t end = std::min(keys.find(", ", at), keys.size());
    if (keys.substr(at, end - at) == key) return true;
    at = end + 2;
  }
  return false;
}

// Of several that are not known the first in the file.
void require_known_keys(const toml::table& table, std::string_view keys, std::string_view where) {
  const toml::key* first = nullptr;
  for (auto&& [key, value] : table)
    if (!is_listed(key.str(), keys) && (first == nullptr || key.source().begin.line < first->source().begin.line)) first = &key;
  if (first != nullptr)
    fail(uint32_t(first->source().begin.line),
         "unknown key " + quoted(first->str()) + std::string(where) + "; there are " + std::string(keys));
}

// ---- values -------------------------------------------------------------------------------

std::string_view text_of(const toml::node& n, std::string_view key) {
  auto value = n.as_string();
  if (value == nullptr) fail(line_of(n), std::string(key) + " must be a string");
  if (value->get().find('\0') != std::string::npos) fail(line_of(n), std::string(key) + " contains a zero byte");
  return value->get();
}

std::optional<uint64_t> whole_number(std::string_view text) {
  uint64_t n = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  bool all = error == std::errc() && end == text.data() + text.size();
  return all ? std::optional(n) : std::nullopt;
}

uint64_t number_of(const toml::node& n, std::string_view key, uint64_t most) {
  auto value = n.as_integer();
  if (value == nullptr) fail(line_of(n), std::string(key) + " must be a whole number");
  int64_t number = value->get();
  if (number < 1 || uint64_t(number) > most)
    fail(line_of(n), std::string(key) + " must be from 1 to " + std::to_string(most) + ", not " + std::to_string(number));
  return uint64_t(number);
}

// A number of bytes, or text as "64 MiB".
uint64_t bytes_of(const toml::node& n, std::string_view key) {
  constexpr uint64_t kMost = uint64_t{1} << 50;
  if (n.as_string() == nullptr) return number_of(n, key, kMost);
  std::string_view text = text_of(n, key);
  std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  std::string_view unit = text.substr(digits);
  if (!unit.empty() && unit[0] == ' ') unit.remove_prefix(1);
  std::optional<uint64_t> number = whole_number(text.substr(0, digits));
  constexpr std::string_view kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto found = std::find(std::begin(kUnits), std::end(kUnits), unit);
  if (!number || found == std::end(kUnits))
    fail(line_of(n), std::string(key) + " must be a number of bytes, or one with B, KiB, MiB, GiB or TiB, not " + quoted(text));
  auto shift = unsigned(found - std::begin(kUnits)) * 10;
  if (*number == 0 || *number > kMost >> shift) fail(line_of(n), std::string(key) + " must be from 1 B to 1024 TiB");
  return *number << shift;
}

// "1000-1999", or a single number; empty: neither.
std::optional<Policy::Range> range_in(std::string_view text, uint64_t least, uint64_t most) {
  std::size_t dash = text.find('-');
  std::optional<uint64_t> first = whole_number(text.substr(0, dash));
  std::optional<uint64_t> last = dash == std::string_view::npos ? first : whole_number(text.substr(dash + 1));
  if (!first || !last || *first < least || *last > most || *first > *last) return std::nullopt;
  return Policy::Range{uint32_t(*first), uint32_t(*last)};
}

Policy::Range range_of(const toml::node& n, std::string_view key, uint64_t least, uint64_t most) {
  std::string what = std::string(key) + " must be from " + std::to_string(least) + " to " + std::to_string(most);
  if (auto value = n.as_integer()) {
    int64_t number = value->get();
    if (number < int64_t(least) || uint64_t(number) > most) fail(line_of(n), what + ", not " + std::to_string(number));
    return {uint32_t(number), uint32_t(number)};
  }
  if (n.as_string() == nullptr) fail(line_of(n), std::string(key) + " must be a number or a string");
  std::string_view text = text_of(n, key);
  std::optional<Policy::Range> range = range_in(text, least, most);
  if (!range) fail(line_of(n), what + ", or a range as \"80-89\", not " + quoted(text));
  return *range;
}

Policy::Range user_of(const toml::node& n) {
  auto text = n.as_string();
  bool is_name = text != nullptr && !text->get().empty() && !isdigit(text->get()[0]);
  if (!is_name) return range_of(n, "uid", 0, kLargestUid);
  const passwd* user = getpwnam(text->get().c_str());
  if (user == nullptr) fail(line_of(n), "there is no user " + quoted(text->get()));
  return {user->pw_uid, user->pw_uid};
}

std::string_view pattern_of(const toml::node& n, std::string_view key, std::string_view begins, std::string_view what) {
  std::string_view text = text_of(n, key);
  if (text.empty() || begins.find(text[0]) == std::string_view::npos)
    fail(line_of(n), std::string(key) + " must begin with " + std::string(what) + ", not " + quoted(text));
  return text;
}

// ---- the table ----------------------------------------------------------------------------

class Compiler {
 public:
  Compiler(Policy& table, std::vector<std::string>& names) : table_(table), names_(names) {}

  void compile(const toml::table& file) {
    require_known_keys(file, "limit, rule", "");
    for (const toml::table* t : tables(file, "rule")) rule(*t);
    for (const toml::table* t : tables(file, "limit")) limit(*t);
  }

 private:
  static std::vector<const toml::table*> tables(const toml::table& file, const char* key) {
    std::vector<const toml::table*> found;
    const toml::node* n = file.get(key);
    if (n == nullptr) return found;
    std::string wanted = std::string(key) + " must be written as [[" + key + "]]";
    const toml::array* list = n->as_array();
    if (list == nullptr) fail(line_of(*n), wanted);
    for (const toml::node& entry : *list) {
      if (!entry.is_table()) fail(line_of(entry), wanted);
      found.push_back(entry.as_table());
    }
    return found;
  }

  void rule(const toml::table& t) {
    require_known_keys(t, kRuleKeys, " of a rule");
    if (table_.rule_count == core::kMaxRules) fail(line_of(t), "more than " + std::to_string(core::kMaxRules) + " rules");
    Policy::Rule r{};
    r.line = line_of(t);
    r.verdict = verdict(t);
    r.operations = operations(t);
    if (auto n = t.get("uid")) r.uids = ranges(*n, "uid", user_of);
    if (auto n = t.get("port")) r.ports = ranges(*n, "port", [](const toml::node& p) { return range_of(p, "port", 1, 65535); });
    if (auto n = t.get("program"))
      r.programs = patterns(*n, "program", [](const toml::node& p) { return pattern_of(p, "program", "/*", "a slash or a star"); });
    if (auto n = t.get("path"))
      r.paths = patterns(*n, "path", [](const toml::node& p) {
        return pattern_of(p, "path", "/*@", "a slash, a star, or @ for an abstract name");
      });
    auto name = t.get("name");
    names_.emplace_back(name != nullptr ? text_of(*name, "name") : std::string_view());
    table_.rules[table_.rule_count++] = r;
  }

  void limit(const toml::table& t) {
    require_known_keys(t, kLimitKeys, " of a limit");
    if (table_.limit_count == core::kMaxLimits) fail(line_of(t), "more than " + std::to_string(core::kMaxLimits) + " limits");
    Policy::Limit l{};
    l.line = line_of(t);
    if (auto n = t.get("uid")) l.uids = ranges(*n, "uid", user_of);
    if (auto n = t.get("clients")) l.clients = uint32_t(number_of(*n, "clients", shm::kMaxDomains));
    if (auto n = t.get("connections")) l.connections = uint32_t(number_of(*n, "connections", INT32_MAX));
    if (auto n = t.get("bytes")) l.bytes = bytes_of(*n, "bytes");
    if (auto n = t.get("requests_per_second")) l.requests = uint32_t(number_of(*n, "requests_per_second", kMostRequests));
    l.burst = l.requests;
    if (auto n = t.get("burst")) {
      if (l.requests == 0) fail(line_of(*n), "burst means nothing without requests_per_second");
      l.burst = uint32_t(number_of(*n, "burst", kMostRequests));
    }
    if (l.clients == 0 && l.connections == 0 && l.bytes == 0 && l.requests == 0)
      fail(l.line, "a limit of nothing; there are bytes, clients, connections, requests_per_second");
    table_.limits[table_.limit_count++] = l;
  }

  static core::Verdict verdict(const toml::table& t) {
    const toml::node* n = t.get("action");
    if (n == nullptr) fail(line_of(t), "a rule without action; there are \"allow\", \"kernel\", \"deny\"");
    std::string_view text = text_of(*n, "action");
    if (text == "allow") return core::Verdict::kAllow;
    if (text == "kernel") return core::Verdict::kKernel;
    if (text == "deny") return core::Verdict::kDeny;
    fail(line_of(*n), "action must be \"allow\", \"kernel\" or \"deny\", not " + quoted(text));
  }

  static uint8_t operations(const toml::table& t) {
    const toml::node* n = t.get("operation");
    if (n == nullptr) return core::kListening | core::kConnecting;
    std::string_view text = text_of(*n, "operation");
    if (text == "listen") return core::kListening;
    if (text == "connect") return core::kConnecting;
    fail(line_of(*n), "operation must be \"listen\" or \"connect\", not " + quoted(text));
  }

  // Each of a list, or the one that there is.
  template <class Each>
  static uint16_t each(const toml::node& n, std::string_view key, Each visit) {
    const toml::array* list = n.as_array();
    if (list == nullptr) return visit(n), uint16_t{1};
    if (list->empty()) fail(line_of(n), std::string(key) + " is an empty list; leave it out to mean all");
    for (const toml::node& one : *list) visit(one);
    return uint16_t(list->size());
  }

  template <class Read>
  Policy::Span ranges(const toml::node& n, std::string_view key, Read read) {
    auto first = uint16_t(table_.range_count);
    return {first, each(n, key, [&](const toml::node& one) {
              if (table_.range_count == core::kMaxRanges) fail(line_of(one), "too many users and ports in all rules together");
              Policy::Range range = read(one);
              table_.ranges[table_.range_count++] = range;
            })};
  }

  template <class Read>
  Policy::Span patterns(const toml::node& n, std::string_view key, Read read) {
    auto first = uint16_t(table_.pattern_count);
    return {first, each(n, key, [&](const toml::node& one) {
              std::string_view text = read(one);
              bool fits = table_.pattern_count < core::kMaxPatterns && text.size() <= core::kPolicyTextBytes - table_.text_bytes;
              if (!fits) fail(line_of(one), "too many programs and paths in all rules together");
              table_.patterns[table_.pattern_count++] = {table_.text_bytes, uint32_t(text.size())};
              memcpy(table_.text + table_.text_bytes, text.data(), text.size());
              table_.text_bytes += uint32_t(text.size());
            })};
  }

  Policy& table_;
  std::vector<std::string>& names_;
};

}  // namespace

std::string parse_policy(std::string_view text, const std::string& path, PolicyFile& out) {
  auto said = [&](uint64_t line, std::string_view reason) { return path + ":" + std::to_string(line) + ": " + std::string(reason); };
  PolicyFile file{path, std::make_unique<Policy>(), {}};
  try {
    Compiler(*file.table, file.names).compile(toml::parse(text, path));
  } catch (const toml::parse_error& e) {
    return said(e.source().begin.line, e.description());
  } catch (const Wrong& w) {
    return said(w.line, w.reason);
  }
  out = std::move(file);
  return {};
}

std::string read_policy(const std::string& path, PolicyFile& out) {
  auto because = [&](const char* what) { return path + ": " + what; };
  Descriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat st;
  if (!fd || fstat(fd.get(), &st) != 0) return because(strerror(errno));
  if (!S_ISREG(st.st_mode)) return because("is not a file");
  // Whoever may write it could give themselves what it keeps from them.
  if (st.st_uid != 0 && st.st_uid != geteuid()) return because("belongs to another user");
  if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0) return because("may be written to by others");
  if (st.st_size > kMostFileBytes) return because("is larger than 1 MiB");
  std::string text(std::size_t(st.st_size), 0);
  ssize_t n = pread(fd.get(), text.data(), text.size(), 0);
  if (n < 0) return because(strerror(errno));
  text.resize(std::size_t(n));
  return parse_policy(text, path, out);
}

}  // namespace sluice::monitor
