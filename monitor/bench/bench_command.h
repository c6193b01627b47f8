// The command line of `sluice bench`.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <vector>

namespace sluice::monitor::bench {

class BenchCommand {
 public:
  explicit BenchCommand(CLI::App& app);
  ~BenchCommand();
  bool is_wanted() const;
  int run() const;  // the exit status

 private:
  struct Parsed;
  void add_requests();
  void add_limits();
  void add_dlibos();
  std::unique_ptr<Parsed> parsed_;
  CLI::App* bench_;
  CLI::App* requests_;
  CLI::App* limits_;
  CLI::App* dlibos_;
  std::vector<CLI::App*> scripts_;
};

}  // namespace sluice::monitor::bench
