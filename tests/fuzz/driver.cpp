// Runs a target without libFuzzer: the corpus, then cases that are mutated from it and from each other, with a fixed seed.
//
//   TARGET [--seed=N] [--runs=N] [--seconds=S] [--race=S] [--save=DIR] [FILE or DIR...]
//
// Where the compiler can (-fsanitize-coverage=trace-pc), a case that reaches something new is kept and mutated
// further, and written to DIR. A case that fails, or takes longer than 10 s, is written to crash-TARGET-SEED-RUN;
// TARGET FILE runs it again. A race (readers.h) is not reproducible; its seed says what both sides wanted.
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, std::size_t n);
extern "C" __attribute__((weak)) uint64_t fuzz_race(uint64_t seed, double seconds);
extern "C" __attribute__((weak)) int LLVMFuzzerInitialize(int* argc, char*** argv);
// Called at each edge: a target may change something there.
extern "C" __attribute__((weak)) void fuzz_edge();

// A failure that a sanitizer finds ends in abort(), where the case is saved.
extern "C" const char* __asan_default_options() { return "abort_on_error=1:handle_abort=0:detect_leaks=0"; }
extern "C" const char* __ubsan_default_options() { return "halt_on_error=1:abort_on_error=1:print_stacktrace=1"; }

// ---- coverage -----------------------------------------------------------------------------

namespace {

constexpr std::size_t kEdges = 1u << 16;
uint8_t reached[kEdges], reached_before[kEdges];

}  // namespace

extern "C" __attribute__((no_sanitize("address", "undefined"))) void __sanitizer_cov_trace_pc() {
  static uintptr_t last = 0;
  auto pc = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
  uint8_t& n = reached[((pc >> 2) ^ last) % kEdges];
  if (n != UINT8_MAX) ++n;
  last = pc >> 3;
  if (fuzz_edge != nullptr) fuzz_edge();
}

namespace {

using Case = std::vector<uint8_t>;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kMostBytes = 512;
constexpr unsigned kMostSeconds = 10;

// By powers of two: three times is not news after two, sixteen times is.
uint8_t bucket(uint8_t n) { return n == 0 ? 0 : uint8_t(1u << std::min(7, 31 - __builtin_clz(n))); }

bool reached_something_new() {
  bool any = false;
  for (std::size_t i = 0; i < kEdges; ++i) {
    uint8_t b = bucket(reached[i]);
    any |= (b & ~reached_before[i]) != 0;
    reached_before[i] |= b;
  }
  return any;
}

// ---- the case at hand, for when it fails ------------------------------------------------------

Case current;
char crash_name[256] = "crash";

void save_and_end(int number) {
  signal(number, SIG_DFL);
  if (FILE* f = fopen(crash_name, "wb")) {
    fwrite(current.data(), 1, current.size(), f);
    fclose(f);
  }
  fprintf(stderr, "%s: %s\n", number == SIGALRM ? "takes too long" : "failed", crash_name);
  if (number == SIGALRM) _exit(124);
  raise(number);
}

void run(const Case& c) {
  current = c;
  memset(reached, 0, sizeof reached);
  alarm(kMostSeconds);
  LLVMFuzzerTestOneInput(current.data(), current.size());
  alarm(0);
}

// ---- mutations ----------------------------------------------------------------------------

struct Mutator {
  std::mt19937_64 random;
  std::size_t below(std::size_t n) { return n == 0 ? 0 : std::size_t(random() % n); }

  Case fresh() {
    Case c(1 + below(256));
    for (uint8_t& b : c) b = uint8_t(random() >> below(8));
    return c;
  }

  // The pieces are those of a sequence of operations: bytes, runs of bytes, the tails of others.
  Case mutated(Case c, const Case& other) {
    for (std::size_t n = 1 + below(6); n > 0; --n) {
      std::size_t at = below(c.size() + 1);
      switch (below(7)) {
        case 0: if (at < c.size()) c[at] = uint8_t(random()); break;
        case 1: if (at < c.size()) c[at] ^= uint8_t(1u << below(8)); break;
        case 2: if (at < c.size()) c[at] = uint8_t(c[at] + (below(2) ? 1 : -1)); break;
        case 3: {
          Case more = fresh();
          more.resize(std::min<std::size_t>(more.size(), 1 + below(16)));
          c.insert(c.begin() + long(at), more.begin(), more.end());
          break;
        }
        case 4: c.erase(c.begin() + long(at), c.begin() + long(std::min(c.size(), at + 1 + below(16)))); break;
        case 5: {
          std::size_t from = below(other.size());
          std::size_t count = std::min(other.size() - from, 1 + below(64));
          c.insert(c.begin() + long(at), other.begin() + long(from), other.begin() + long(from + count));
          break;
        }
        default: c.insert(c.end(), c.begin() + long(at), c.end()); break;  // the same again
      }
      if (c.size() > kMostBytes) c.resize(kMostBytes);
    }
    return c;
  }
};

// ---- options ------------------------------------------------------------------------------

struct Options {
  uint64_t seed = 1;
  uint64_t runs = 0;
  double seconds = 0, race = 0;
  std::string save;
  std::vector<std::filesystem::path> files;
};

void add_files(const std::filesystem::path& path, std::vector<std::filesystem::path>& to) {
  if (!std::filesystem::is_directory(path)) return to.push_back(path);
  for (const auto& entry : std::filesystem::directory_iterator(path))
    if (entry.is_regular_file()) to.push_back(entry.path());
  std::sort(to.begin(), to.end());
}

bool parse(int argc, char** argv, Options& o) {
  for (int i = 1; i < argc; ++i) {
    std::string a = argv[i];
    std::string value = a.substr(std::min(a.size(), a.find('=') + 1));
    if (a.rfind("--seed=", 0) == 0) o.seed = std::stoull(value);
    else if (a.rfind("--runs=", 0) == 0) o.runs = std::stoull(value);
    else if (a.rfind("--seconds=", 0) == 0) o.seconds = std::stod(value);
    else if (a.rfind("--race=", 0) == 0) o.race = std::stod(value);
    else if (a.rfind("--save=", 0) == 0) o.save = value;
    else if (a.rfind("--", 0) == 0) return fprintf(stderr, "unknown option %s\n", argv[i]), false;
    else add_files(a, o.files);
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  if (!parse(argc, argv, o)) return 2;
  if (LLVMFuzzerInitialize != nullptr) LLVMFuzzerInitialize(&argc, &argv);
  std::string name = std::filesystem::path(argv[0]).filename();
  for (int number : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM}) signal(number, save_and_end);

  std::vector<Case> pool;
  for (const auto& path : o.files) {
    std::ifstream file(path, std::ios::binary);
    pool.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    snprintf(crash_name, sizeof crash_name, "%s", path.c_str());  // it is there already
    run(pool.back());
    (void)reached_something_new();
  }
  std::size_t corpus = pool.size();
  if (pool.empty()) pool.push_back({0});

  Mutator m{std::mt19937_64(o.seed)};
  auto end = Clock::now() + std::chrono::duration<double>(o.seconds);
  uint64_t runs = 0;
  for (; runs < o.runs || (o.seconds > 0 && Clock::now() < end); ++runs) {
    Case c = m.below(16) == 0 ? m.fresh() : m.mutated(pool[m.below(pool.size())], pool[m.below(pool.size())]);
    snprintf(crash_name, sizeof crash_name, "crash-%s-%llu-%llu", name.c_str(), (unsigned long long)o.seed, (unsigned long long)runs);
    run(c);
    if (!reached_something_new()) continue;
    if (!o.save.empty()) std::ofstream(o.save + "/" + std::to_string(o.seed) + "-" + std::to_string(runs), std::ios::binary)
        .write(reinterpret_cast<const char*>(c.data()), long(c.size()));
    pool.push_back(std::move(c));
  }
  auto edges = std::count_if(std::begin(reached_before), std::end(reached_before), [](uint8_t b) { return b != 0; });
  printf("%s: %zu cases of the corpus, %llu more, seed %llu; %zu new ones, %ld edges\n", name.c_str(), corpus,
         (unsigned long long)runs, (unsigned long long)o.seed, pool.size() - std::max<std::size_t>(corpus, 1), long(edges));
  if (o.race > 0 && fuzz_race != nullptr) {
    snprintf(crash_name, sizeof crash_name, "race-%s-%llu", name.c_str(), (unsigned long long)o.seed);
    uint64_t steps = fuzz_race(o.seed, o.race);
    printf("%s: %llu steps against a thread that disturbs\n", name.c_str(), (unsigned long long)steps);
  }
  return 0;
}
