#include "nocsim/program/options.h"

#include <algorithm>
#include <charconv>
#include <climits>

namespace nocsim::program {
namespace {

std::string quoted(std::string_view text) { return "'" + std::string(text) + "'"; }

}  // namespace

int number_from(std::string_view text, int low, int high, std::string_view what) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < low || value > high)
    throw BadOption(std::string(what) + " has to be a number from " + std::to_string(low) + " to " +
                    std::to_string(high) + ", not " + quoted(text));
  return value;
}

std::pair<int, int> size_from(std::string_view text, std::string_view what) {
  const size_t x = text.find('x');
  if (x == std::string_view::npos)
    throw BadOption(std::string(what) + " has to be WIDTHxHEIGHT, not " + quoted(text));
  return {number_from(text.substr(0, x), 1, kMaxSide, what),
          number_from(text.substr(x + 1), 1, kMaxSide, what)};
}

Node node_from(std::string_view text, const Config& config) {
  const size_t comma = text.find(',');
  if (comma == std::string_view::npos) return number_from(text, 0, config.nodes() - 1, "a node");
  const int x = number_from(text.substr(0, comma), 0, config.width - 1, "a node's x");
  const int y = number_from(text.substr(comma + 1), 0, config.height - 1, "a node's y");
  return config.node_at({x, y});
}

Rate rate_from(std::string_view text) {
  const auto wrong = [&] {
    return BadOption("a rate has to be a number from 0 to 1 with at most six decimals, not " +
                     quoted(text));
  };
  const size_t point = std::min(text.find('.'), text.size());
  const std::string_view whole = text.substr(0, point);
  std::string millionths(text.substr(std::min(point + 1, text.size())));
  const auto digits = [](std::string_view s) {
    return std::all_of(s.begin(), s.end(), [](char c) { return c >= '0' && c <= '9'; });
  };
  if ((whole.empty() && millionths.empty()) || millionths.size() > 6 || whole.size() > 3 ||
      !digits(whole) || !digits(millionths))
    throw wrong();
  millionths.resize(6, '0');
  Rate rate = 0;
  for (char c : std::string(whole) + millionths) rate = rate * 10 + static_cast<Rate>(c - '0');
  if (rate > kFullRate) throw wrong();
  return rate;
}

std::vector<Rate> rates_from(std::string_view text) {
  std::vector<Rate> rates;
  const size_t first = text.find(':');
  if (first == std::string_view::npos) {
    for (size_t at = 0; at <= text.size();) {
      const size_t end = std::min(text.find(',', at), text.size());
      rates.push_back(rate_from(text.substr(at, end - at)));
      at = end + 1;
    }
    return rates;
  }
  const size_t second = text.find(':', first + 1);
  if (second == std::string_view::npos)
    throw BadOption("rates have to be LO:HI:STEP, not " + quoted(text));
  const Rate low = rate_from(text.substr(0, first));
  const Rate high = rate_from(text.substr(first + 1, second - first - 1));
  const Rate step = rate_from(text.substr(second + 1));
  if (!step || low > high)
    throw BadOption("rates have to go up from LO to HI in steps above 0, not " + quoted(text));
  if ((high - low) / step > 1000) throw BadOption("more than 1000 rates: " + quoted(text));
  for (Rate rate = low; rate <= high; rate += step) rates.push_back(rate);
  return rates;
}

void Options::number(std::string name, std::string meaning, int& value, int low, int high) {
  const std::string what = "--" + name;
  add(std::move(name), "N", std::move(meaning),
      [=, &value](std::string_view text) { value = number_from(text, low, high, what); });
}

void Options::path(std::string name, std::string meaning, std::string& value) {
  const std::string what = "--" + name;
  add(std::move(name), "FILE", std::move(meaning), [=, &value](std::string_view text) {
    if (text.empty()) throw BadOption(what + " needs a file's name");
    value = text;
  });
}

const Options::Entry& Options::find(std::string_view name) const {
  for (const Entry& entry : entries_)
    if (entry.take && entry.name == name) return entry;
  throw BadOption("there is no option --" + std::string(name));
}

bool Options::parse(const std::vector<std::string>& arguments) {
  std::vector<std::pair<const Entry*, std::string>> given;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--help" || argument == "-h") return false;
    if (!argument.starts_with("--")) throw BadOption("unexpected argument " + quoted(argument));
    const size_t equals = argument.find('=');
    const Entry& entry = find(
        std::string_view(argument).substr(2, equals == std::string::npos ? equals : equals - 2));
    if (equals != std::string::npos)
      given.emplace_back(&entry, argument.substr(equals + 1));
    else if (i + 1 < arguments.size() && !arguments[i + 1].starts_with("--"))
      given.emplace_back(&entry, arguments[++i]);
    else
      throw BadOption("--" + entry.name + " needs a value: --" + entry.name + "=" + entry.form);
  }
  std::stable_partition(given.begin(), given.end(),
                        [&](const auto& g) { return g.first->name == first_; });
  for (const auto& [entry, value] : given) entry->take(value);
  return true;
}

std::string Options::help() const {
  std::string text;
  for (const Entry& entry : entries_) {
    if (!entry.take) {
      text += "\n" + entry.meaning + ":\n";
      continue;
    }
    std::string left = "  --" + entry.name + "=" + entry.form;
    left.resize(std::max<size_t>(left.size() + 2, 30), ' ');
    text += left + entry.meaning + "\n";
  }
  return text;
}

void MeshOptions::add_to(Options& o) {
  o.section("The mesh");
  o.take_first("profile");
  o.add("profile", "NAME", "booksim (default), udn, tilegx36, tilegx72: what the rest starts from",
        [this](auto text) {
          profile = find_profile(text);
          if (!profile) throw BadOption("there is no profile " + quoted(text));
          config = profile->config;
          packet_flits = profile->packet_flits;
        });
  o.add("mesh", "WxH", "routers",
        [this](auto text) { std::tie(config.width, config.height) = size_from(text, "--mesh"); });
  o.add("order", "xy|yx", "which dimension first", [this](auto text) {
    if (text != "xy" && text != "yx")
      throw BadOption("--order has to be xy or yx, not " + quoted(text));
    config.order = text == "xy" ? Order::kXY : Order::kYX;
  });
  o.number("vcs", "virtual channels", config.vcs, 1, kMaxVcs);
  o.add("depth", "N", "flits in each input VC's FIFO, and in each one between router and node",
        [this](auto text) {
          config.depth = config.eject_depth = number_from(text, 1, kMaxDepth, "--depth");
        });
  o.number("eject-depth", "flits between router and node (after --depth)", config.eject_depth, 1,
           kMaxDepth);
  o.number("router-stages",
           "1: all in one cycle; 2: VC allocation, the rest; 3: VC, switch, traversal",
           config.router_stages, 1, kMaxDelay);
  o.number("link-delay", "cycles on a link", config.link_delay, 0, kMaxDelay);
  o.number("turn-delay", "cycles added where a packet turns", config.turn_delay, 0, kMaxDelay);
  o.number("credit-delay", "cycles added to a credit's way back", config.credit_delay, 0,
           kMaxDelay);
  o.add("arbitration", "NAME", "round-robin, oldest, fixed", [this](auto text) {
    if (text == "round-robin")
      config.arbitration = Arbitration::kRoundRobin;
    else if (text == "oldest")
      config.arbitration = Arbitration::kOldest;
    else if (text == "fixed")
      config.arbitration = Arbitration::kFixed;
    else
      throw BadOption("--arbitration has to be round-robin, oldest or fixed, not " + quoted(text));
  });
  o.add("vc-reuse", "NAME", "when a VC is given on: tail, tail-credit", [this](auto text) {
    if (text != "tail" && text != "tail-credit")
      throw BadOption("--vc-reuse has to be tail or tail-credit, not " + quoted(text));
    config.reuse = text == "tail" ? Reuse::kAfterTail : Reuse::kAfterTailCredit;
  });
  o.number("packet", "flits in a packet, a header included", packet_flits, 1, 1024);
}

void MeshOptions::check() const {
  if (const std::string complaint = complaint_about(config); !complaint.empty())
    throw BadOption(complaint);
}

}  // namespace nocsim::program
