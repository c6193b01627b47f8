// The options of a command: a table of names, what they mean, and who takes the value.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nocsim/config.h"
#include "nocsim/traffic.h"

namespace nocsim::program {

// What is wrong with the command line, in one line; the program ends with status 2.
class BadOption : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Options {
 public:
  using Take = std::function<void(std::string_view value)>;

  void section(std::string title) { entries_.push_back({"", std::move(title), {}, ""}); }
  // `form` is what stands for the value in the help, e.g. WxH.
  void add(std::string name, std::string form, std::string meaning, Take take) {
    entries_.push_back({std::move(name), std::move(meaning), std::move(take), std::move(form)});
  }
  void number(std::string name, std::string meaning, int& value, int low, int high);
  void path(std::string name, std::string meaning, std::string& value);
  // `name` is taken before all others, wherever it stands.
  void take_first(std::string name) { first_ = std::move(name); }

  // --name=value, or --name value. False: help was asked for. Throws BadOption.
  bool parse(const std::vector<std::string>& arguments);
  std::string help() const;

 private:
  struct Entry {
    std::string name;
    std::string meaning;
    Take take;
    std::string form;
  };
  const Entry& find(std::string_view name) const;

  std::vector<Entry> entries_;
  std::string first_;
};

// What --mesh, --profile and their like say, for all commands.
struct MeshOptions {
  const Profile* profile = find_profile("booksim");
  Config config = profile->config;
  int packet_flits = profile->packet_flits;

  void add_to(Options& options);
  // To be called when all are parsed. Throws BadOption.
  void check() const;
};

int number_from(std::string_view text, int low, int high, std::string_view what);
// WxH.
std::pair<int, int> size_from(std::string_view text, std::string_view what);
// A node: its number, or X,Y.
Node node_from(std::string_view text, const Config& config);
// A decimal number of at most six decimals, in millionths.
Rate rate_from(std::string_view text);
// LO:HI:STEP, or one rate, or several with commas between them.
std::vector<Rate> rates_from(std::string_view text);

}  // namespace nocsim::program
