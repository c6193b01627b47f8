#include <cstdio>

#include "nocsim/program/commands.h"
#include "nocsim/program/options.h"

namespace nocsim::program {

int profiles_command(const Arguments& arguments) {
  Options options;
  std::string only;
  options.add("profile", "NAME", "this one only", [&](auto text) {
    if (!find_profile(text)) throw BadOption("there is no profile '" + std::string(text) + "'");
    only = text;
  });
  if (!options.parse(arguments)) {
    std::printf(
        "nocsim profiles [--profile=NAME]\n\nPrints each constant of a profile and its "
        "source.\n\n%s",
        options.help().c_str());
    return 0;
  }
  for (const Profile& profile : all_profiles()) {
    if (!only.empty() && profile.name != only) continue;
    std::printf("%s: %s\n", std::string(profile.name).c_str(), std::string(profile.about).c_str());
    for (const Origin& origin : profile.origins)
      std::printf("  %-15s %-35s %s\n", std::string(origin.name).c_str(),
                  std::string(origin.value).c_str(), std::string(origin.source).c_str());
  }
  return 0;
}

}  // namespace nocsim::program
