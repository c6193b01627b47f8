// Files that a command writes, opened before it computes for minutes.
#pragma once

#include <fstream>
#include <stdexcept>
#include <string>

namespace nocsim::program {

class CannotWrite : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Output {
 public:
  // An empty path: nothing is to be written.
  explicit Output(std::string path);
  bool wanted() const { return !path_.empty(); }
  bool is_page() const { return path_.ends_with(".html") || path_.ends_with(".htm"); }
  void write(const std::string& text);

 private:
  std::string path_;
  std::ofstream file_;
};

}  // namespace nocsim::program
