#include "nocsim/program/output.h"

#include <cerrno>
#include <cstring>
#include <utility>

namespace nocsim::program {

Output::Output(std::string path) : path_(std::move(path)) {
  if (!wanted()) return;
  file_.open(path_, std::ios::trunc);
  if (!file_) throw CannotWrite("cannot write " + path_ + ": " + std::strerror(errno));
}

void Output::write(const std::string& text) {
  if (!wanted()) return;
  file_ << text;
  file_.close();
  if (!file_) throw CannotWrite("cannot write " + path_);
}

}  // namespace nocsim::program
