// Policy files: what they come to, and for wrong ones the line and the reason.
#include "monitor/policy_file.h"

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

namespace sluice::monitor {
namespace {

using core::Attempt;
using core::kConnecting;
using core::kListening;
using core::Verdict;

std::string error_of(std::string_view text) {
  PolicyFile file;
  return parse_policy(text, "p", file);
}

PolicyFile read(std::string_view text) {
  PolicyFile file;
  std::string error = parse_policy(text, "p", file);
  INFO(error);
  REQUIRE(error.empty());
  return file;
}

Verdict decide(const PolicyFile& file, const Attempt& a) {
  uint32_t rule;
  return file.table->decide(a, rule);
}

// ---- right files ------------------------------------------------------------------------

TEST_CASE("an empty file is a policy that refuses nobody") {
  for (const char* text : {"", "\n\n", "# nothing\n"}) CHECK(read(text).table->is_empty());
}

TEST_CASE("a file with everything in it becomes rules in their order, and limits") {
  PolicyFile file = read(R"(
[[rule]]
name = "the metrics port is root's"
action = "allow"
uid = 0
port = 9100

[[rule]]
action = "deny"
operation = "connect"
uid = ["root", 1000, "2000-2999"]
port = [9100, "8000-8999"]
program = "/usr/bin/*"
path = ["/run/metrics/*.sock", "@metrics"]

[[limit]]
uid = "1000-1999"
clients = 10
connections = 100
bytes = "64 MiB"
requests_per_second = 500

[[limit]]
requests_per_second = 50
burst = 5
bytes = 4096
)");
  const core::Policy& p = *file.table;
  REQUIRE(p.rule_count == 2);
  CHECK(p.rules[0].line == 2);
  CHECK(p.rules[1].line == 8);
  CHECK(file.names == std::vector<std::string>{"the metrics port is root's", ""});
  const char* tool = "/usr/bin/tool";
  CHECK(decide(file, {kListening, 0, "", 9100, ""}) == Verdict::kAllow);
  CHECK(decide(file, {kConnecting, 1000, tool, 9100, ""}) == Verdict::kDeny);
  CHECK(decide(file, {kConnecting, 2999, tool, 8500, ""}) == Verdict::kDeny);
  CHECK(decide(file, {kConnecting, 3000, tool, 8500, ""}) == Verdict::kAllow);
  CHECK(decide(file, {kConnecting, 1000, "/opt/tool", 8500, ""}) == Verdict::kAllow);
  CHECK(decide(file, {kListening, 1000, tool, 8500, ""}) == Verdict::kAllow);
  CHECK(decide(file, {kConnecting, 0, tool, 0, "/run/metrics/a.sock"}) == Verdict::kDeny);
  CHECK(decide(file, {kConnecting, 0, tool, 0, std::string_view("\0metrics", 8)}) == Verdict::kDeny);
  const core::Policy::Limit* limit = p.limit_of(1500);
  REQUIRE(limit != nullptr);
  CHECK(limit->clients == 10);
  CHECK(limit->connections == 100);
  CHECK(limit->bytes == 64u << 20);
  CHECK(limit->requests == 500);
  CHECK(limit->burst == 500);
  CHECK(limit->line == 16);
  const core::Policy::Limit* rest = p.limit_of(0);
  REQUIRE(rest == &p.limits[1]);
  CHECK(rest->burst == 5);
  CHECK(rest->bytes == 4096);
  CHECK(rest->clients == 0);
}

TEST_CASE("sizes have binary units, with or without a space") {
  CHECK(read("[[limit]]\nbytes = \"1 B\"").table->limits[0].bytes == 1);
  CHECK(read("[[limit]]\nbytes = \"3KiB\"").table->limits[0].bytes == 3072);
  CHECK(read("[[limit]]\nbytes = \"2 GiB\"").table->limits[0].bytes == uint64_t{2} << 30);
  CHECK(read("[[limit]]\nbytes = \"1 TiB\"").table->limits[0].bytes == uint64_t{1} << 40);
}

// ---- wrong files ------------------------------------------------------------------------

struct WrongFile {
  const char* text;
  const char* error;
};

TEST_CASE("a wrong file says which line is wrong, and why") {
  const WrongFile files[] = {
      {"[[rule]]\nname = \"x\"\n", "p:1: a rule without action; there are \"allow\", \"kernel\", \"deny\""},
      {"[[rule]]\naction = \"allow\"\n[[rule]]\nuid = 1\n", "p:3: a rule without action"},
      {"[[rule]]\naction = \"drop\"\n", "p:2: action must be \"allow\", \"kernel\" or \"deny\", not \"drop\""},
      {"[[rule]]\naction = true\n", "p:2: action must be a string"},
      {"[[rule]]\naction = \"deny\"\noperation = \"accept\"\n", "p:3: operation must be \"listen\" or \"connect\", not \"accept\""},
      {"[[rule]]\naction = \"deny\"\n\nprot = 80\n", "p:4: unknown key \"prot\" of a rule; there are action, name, operation"},
      {"[[limit]]\nrequests = 80\n", "p:2: unknown key \"requests\" of a limit; there are burst, bytes"},
      {"[[limits]]\nclients = 80\n", "p:1: unknown key \"limits\"; there are limit, rule"},
      {"# one\n[rule]\naction = \"deny\"\n", "p:2: rule must be written as [[rule]]"},
      {"rule = [1]\n", "p:1: rule must be written as [[rule]]"},
      {"limit = 7\n", "p:1: limit must be written as [[limit]]"},
      {"[[rule]]\naction = \"deny\"\nuid = -1\n", "p:3: uid must be from 0 to 4294967294, not -1"},
      {"[[rule]]\naction = \"deny\"\nuid = 4294967295\n", "p:3: uid must be from 0 to 4294967294"},
      {"[[rule]]\naction = \"deny\"\nuid = 1.5\n", "p:3: uid must be a number or a string"},
      {"[[rule]]\naction = \"deny\"\nuid = \"no such user\"\n", "p:3: there is no user \"no such user\""},
      {"[[rule]]\naction = \"deny\"\nuid = \"2000-1000\"\n", "p:3: uid must be from 0 to 4294967294, or a range"},
      {"[[rule]]\naction = \"deny\"\nuid = \"10-\"\n", "p:3: uid must be from 0"},
      {"[[rule]]\naction = \"deny\"\nuid = \"\"\n", "p:3: uid must be from 0"},
      {"[[rule]]\naction = \"deny\"\nuid = []\n", "p:3: uid is an empty list; leave it out to mean all"},
      {"[[rule]]\naction = \"deny\"\nuid = [\n  1,\n  \"x-y\",\n]\n", "p:5: there is no user \"x-y\""},
      {"[[rule]]\naction = \"deny\"\nport = 0\n", "p:3: port must be from 1 to 65535, not 0"},
      {"[[rule]]\naction = \"deny\"\nport = 65536\n", "p:3: port must be from 1 to 65535, not 65536"},
      {"[[rule]]\naction = \"deny\"\nport = \"http\"\n", "p:3: port must be from 1 to 65535, or a range as \"80-89\", not \"http\""},
      {"[[rule]]\naction = \"deny\"\nport = [80,\n81,\n70000]\n", "p:5: port must be from 1 to 65535, not 70000"},
      {"[[rule]]\naction = \"deny\"\nport = {}\n", "p:3: port must be a number or a string"},
      {"[[rule]]\naction = \"deny\"\npath = \"run/x\"\n", "p:3: path must begin with a slash, a star, or @ for an abstract name, not \"run/x\""},
      {"[[rule]]\naction = \"deny\"\npath = \"\"\n", "p:3: path must begin with"},
      {"[[rule]]\naction = \"deny\"\npath = \"/a\\u0000b\"\n", "p:3: path contains a zero byte"},
      {"[[rule]]\naction = \"deny\"\nprogram = \"nginx\"\n", "p:3: program must begin with a slash or a star, not \"nginx\""},
      {"[[rule]]\naction = \"deny\"\nprogram = 5\n", "p:3: program must be a string"},
      {"[[rule]]\naction = \"deny\"\nname = 5\n", "p:3: name must be a string"},
      {"[[limit]]\nuid = 0\n", "p:1: a limit of nothing; there are bytes, clients"},
      {"[[limit]]\nclients = 0\n", "p:2: clients must be from 1 to 65536, not 0"},
      {"[[limit]]\nclients = \"many\"\n", "p:2: clients must be a whole number"},
      {"[[limit]]\nconnections = -5\n", "p:2: connections must be from 1 to 2147483647, not -5"},
      {"[[limit]]\nconnections = 3000000000\n", "p:2: connections must be from 1"},
      {"[[limit]]\nbytes = \"64 MB\"\n", "p:2: bytes must be a number of bytes, or one with B, KiB, MiB, GiB or TiB, not \"64 MB\""},
      {"[[limit]]\nbytes = \"MiB\"\n", "p:2: bytes must be a number of bytes"},
      {"[[limit]]\nbytes = \"0 MiB\"\n", "p:2: bytes must be from 1 B"},
      {"[[limit]]\nbytes = \"99999999999999999999 B\"\n", "p:2: bytes must be a number of bytes"},
      {"[[limit]]\nbytes = \"9000 TiB\"\n", "p:2: bytes must be from 1 B to 1024 TiB"},
      {"[[limit]]\nbytes = 1e6\n", "p:2: bytes must be a whole number"},
      {"[[limit]]\nrequests_per_second = 20000000\n", "p:2: requests_per_second must be from 1 to 10000000"},
      {"[[limit]]\nclients = 5\nburst = 5\n", "p:3: burst means nothing without requests_per_second"},
      // What is no TOML at all.
      {"[[rule]]\naction = \"deny\naction2 = 1\n", "p:2: "},
      {"[[rule]\naction = \"deny\"\n", "p:1: "},
      {"[[rule]]\naction = \"deny\"\naction = \"allow\"\n", "p:3: "},
      {"[[rule]]\naction = deny\n", "p:2: "},
      {"\n\nrule\n", "p:3: "},
      {"[[rule]]\nuid = 99999999999999999999\n", "p:2: "},
      {"a = \"\xff\"\n", "p:1: "},
  };
  for (const WrongFile& f : files) {
    INFO(f.text);
    std::string error = error_of(f.text);
    CHECK(error.substr(0, std::string_view(f.error).size()) == f.error);
    CHECK(error.size() > 5);
    CHECK(error.find('\n') == std::string::npos);
  }
}

TEST_CASE("of several unknown keys the first in the file is told") {
  CHECK(error_of("[[rule]]\nzzz = 1\naaa = 2\n").substr(0, 4) == "p:2:");
}

TEST_CASE("more than the table holds is wrong, and says so where it does not fit") {
  std::string rules, ports = "[[rule]]\naction = \"deny\"\nport = [", paths = "[[rule]]\naction = \"deny\"\npath = [";
  for (int i = 0; i <= int(core::kMaxRules); ++i) rules += "[[rule]]\naction = \"deny\"\n";
  CHECK(error_of(rules) == "p:513: more than 256 rules");
  std::string limits;
  for (int i = 0; i <= int(core::kMaxLimits); ++i) limits += "[[limit]]\nclients = 1\n";
  CHECK(error_of(limits) == "p:129: more than 64 limits");
  for (uint32_t i = 0; i <= core::kMaxRanges; ++i) ports += "80,\n";
  CHECK(error_of(ports + "]") == "p:2051: too many users and ports in all rules together");
  for (uint32_t i = 0; i <= core::kMaxPatterns; ++i) paths += "\"/x\",\n";
  CHECK(error_of(paths + "]") == "p:1027: too many programs and paths in all rules together");
}

TEST_CASE("a wrong file leaves the policy that there was") {
  PolicyFile file = read("[[rule]]\naction = \"deny\"\n");
  CHECK_FALSE(parse_policy("[[rule]]\n", "p", file).empty());
  CHECK(file.table->rule_count == 1);
}

// ---- the file itself --------------------------------------------------------------------

struct OnDisk {
  char directory[32] = "/tmp/sluice-policy.XXXXXX";
  std::string path;
  OnDisk() { path = std::string(mkdtemp(directory)) + "/policy.toml"; }
  ~OnDisk() {
    unlink(path.c_str());
    rmdir(directory);
  }
  void write(const char* text, mode_t mode) {
    FILE* f = fopen(path.c_str(), "w");
    fputs(text, f);
    fclose(f);
    chmod(path.c_str(), mode);
  }
  std::string error() {
    PolicyFile file;
    return read_policy(path, file);
  }
};

TEST_CASE_METHOD(OnDisk, "a file is read only if nobody else can write it") {
  write("[[limit]]\nclients = 1\n", 0644);
  CHECK(error().empty());
  for (mode_t mode : {0664, 0646}) {
    write("", mode);
    CHECK(error() == path + ": may be written to by others");
  }
  write("nonsense\n", 0600);
  CHECK(error().substr(0, path.size() + 4) == path + ":1: ");
}

TEST_CASE_METHOD(OnDisk, "what is no file or is not there says so") {
  CHECK(error() == path + ": No such file or directory");
  PolicyFile file;
  CHECK(read_policy(directory, file) == std::string(directory) + ": is not a file");
}

}  // namespace
}  // namespace sluice::monitor
