#include "nocsim/picture/timeline.h"

#include <algorithm>

#include "nocsim/picture/svg.h"

namespace nocsim::picture {
namespace {

constexpr const char* kRequestColor = "#2a6fbb";
constexpr const char* kReplyColor = "#d9822b";
constexpr double kLaneHeight = 26, kLeft = 120, kTop = 70, kTimeWidth = 620, kMeshSide = 330;
constexpr double kSecondsPerCycle = 0.12;

const char* color_of(const std::string& what) {
  if (what == "send") return "#5b8def";
  if (what == "receive") return "#f0b429";
  if (what == "compute") return "#8aa98a";
  return "#b08fc7";
}

// From the client's core by way of the request's routers to the server's core, and back.
struct Lane {
  Node node;
  bool is_core;
  bool is_reply;
};

std::vector<Lane> lanes_of(const RequestPlan& plan, const RequestTrace& trace) {
  std::vector<Lane> lanes;
  for (bool is_reply : {false, true}) {
    lanes.push_back({is_reply ? plan.server : plan.client, true, is_reply});
    for (const RequestTrace::Hop& hop : trace.hops)
      if (hop.is_reply == is_reply &&
          std::none_of(lanes.begin(), lanes.end(), [&](const Lane& lane) {
            return !lane.is_core && lane.is_reply == is_reply && lane.node == hop.node;
          }))
        lanes.push_back({hop.node, false, is_reply});
  }
  lanes.push_back({plan.client, true, false});
  return lanes;
}

void draw_legend(Svg& svg) {
  double y = kMeshSide + 30;
  for (const char* what : {"send", "receive", "compute"}) {
    svg.add("<rect x=\"6\" y=\"%.1f\" width=\"20\" height=\"10\" fill=\"%s\"/>\n", y - 9,
            color_of(what));
    svg.text(34, y, "", std::string("the core's ") + what + " cycles");
    y += 18;
  }
  for (const bool is_reply : {false, true}) {
    svg.add("<path class=\"line\" stroke=\"%s\" d=\"M6 %.1fh20\"/>\n",
            is_reply ? kReplyColor : kRequestColor, y - 4);
    svg.text(34, y, "", is_reply ? "a flit of the reply" : "a flit of the request");
    y += 18;
  }
}

class Timeline {
 public:
  Timeline(Svg& svg, const RequestPlan& plan, const RequestTrace& trace)
      : svg_(svg), plan_(plan), trace_(trace), lanes_(lanes_of(plan, trace)) {
    span_ = std::max<Cycle>(1, trace.ended - trace.begun);
  }

  void draw() {
    const double bottom = kTop + lanes_.size() * kLaneHeight;
    const double step = std::max(1.0, round_step(static_cast<double>(span_), 10));
    for (double cycle = 0; cycle <= static_cast<double>(span_); cycle += step) {
      svg_.add("<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n",
               at(cycle), kTop - 8, at(cycle), bottom);
      svg_.text(at(cycle), kTop - 14, "middle small", number(cycle));
    }
    svg_.text(kLeft - 12, kTop - 14, "right small", "cycle");
    for (size_t i = 0; i < lanes_.size(); ++i) lane(i);
    for (const RequestTrace::Hop& hop : trace_.hops) flit(hop);
  }

  double height() const { return kTop + lanes_.size() * kLaneHeight + 40; }

 private:
  double at(double cycle) const { return kLeft + kTimeWidth * cycle / static_cast<double>(span_); }
  double y_of(size_t i) const { return kTop + (static_cast<double>(i) + 0.5) * kLaneHeight; }

  void lane(size_t i) {
    const Lane& lane = lanes_[i];
    svg_.text(kLeft - 12, y_of(i) + 4, "right",
              (lane.is_core ? "tile " : "router ") + std::to_string(lane.node));
    svg_.add("<line class=\"axis\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", kLeft,
             y_of(i), kLeft + kTimeWidth, y_of(i));
    if (!lane.is_core) return;
    const bool takes =
        i != 0;  // the first lane of the client shows what it sends, the last what it receives
    for (const RequestTrace::Span& span : trace_.spans) {
      if (span.tile != lane.node) continue;
      if (lane.node == plan_.client && (span.what == "receive") != takes) continue;
      if (span.from < trace_.begun) continue;
      const double x = at(static_cast<double>(span.from - trace_.begun)),
                   width = at(static_cast<double>(span.to - trace_.begun)) - x;
      svg_.add(
          "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"14\" fill=\"%s\" stroke=\"#fff\" "
          "stroke-width=\"0.5\"><title>%s, cycles %llu to %llu</title></rect>\n",
          x, y_of(i) - 7, width, color_of(span.what), escaped(span.what).c_str(),
          static_cast<unsigned long long>(span.from - trace_.begun),
          static_cast<unsigned long long>(span.to - trace_.begun));
    }
  }

  size_t lane_of(Node node, bool is_core, bool is_reply, size_t from) const {
    for (size_t i = from; i < lanes_.size(); ++i)
      if (lanes_[i].node == node && lanes_[i].is_core == is_core &&
          (is_core || lanes_[i].is_reply == is_reply))
        return i;
    return lanes_.size() - 1;
  }

  void flit(const RequestTrace::Hop& hop) {
    const size_t from = lane_of(hop.node, false, hop.is_reply, 0);
    const Node next =
        is_link(hop.port)
            ? plan_.config.node_at(step_from(plan_.config.place_of(hop.node), hop.port))
            : hop.node;
    const size_t to = lane_of(next, hop.port == kLocal, hop.is_reply, from);
    svg_.add(
        "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
        "stroke-width=\"1.6\"/>\n",
        at(static_cast<double>(hop.leaves - trace_.begun)), y_of(from),
        at(static_cast<double>(hop.arrives - trace_.begun)), y_of(to),
        hop.is_reply ? kReplyColor : kRequestColor);
  }

  Svg& svg_;
  const RequestPlan& plan_;
  const RequestTrace& trace_;
  std::vector<Lane> lanes_;
  Cycle span_;
};

// The mesh, and a dot for each hop that moves while the hop lasts. One element is the clock, and
// starts again.
void draw_mesh(Svg& svg, const RequestPlan& plan, const RequestTrace& trace) {
  const Config& c = plan.config;
  const double cell = kMeshSide / std::max(c.width, c.height);
  const auto x_of = [&](Place p) { return (p.x + 0.5) * cell; };
  const auto y_of = [&](Place p) { return (p.y + 0.5) * cell; };
  for (Node node = 0; node < static_cast<Node>(c.nodes()); ++node) {
    const Place p = c.place_of(node);
    for (int port : {kEast, kSouth})
      if (const Place next = step_from(p, port); c.holds(next))
        svg.add("<line class=\"axis\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", x_of(p),
                y_of(p), x_of(next), y_of(next));
  }
  for (Node node = 0; node < static_cast<Node>(c.nodes()); ++node) {
    const Place p = c.place_of(node);
    const char* fill = node == plan.client ? "#cfe0f7" : node == plan.server ? "#f8dfc0" : "#fff";
    svg.add(
        "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"3\" fill=\"%s\" "
        "stroke=\"#778\"/>\n",
        x_of(p) - cell * 0.28, y_of(p) - cell * 0.28, cell * 0.56, cell * 0.56, fill);
    if (cell > 22) svg.text(x_of(p), y_of(p) + 4, "middle small", std::to_string(node));
  }
  const double length = static_cast<double>(trace.ended - trace.begun + 6) * kSecondsPerCycle;
  svg.add(
      "<rect width=\"0\" height=\"0\"><animate id=\"clock\" attributeName=\"x\" from=\"0\" "
      "to=\"1\" begin=\"0s;clock.end\" dur=\"%.2fs\"/></rect>\n",
      length);
  for (const RequestTrace::Hop& hop : trace.hops) {
    const Place from = c.place_of(hop.node), to = step_from(from, hop.port);
    const double begin = static_cast<double>(hop.leaves - trace.begun) * kSecondsPerCycle;
    const double lasts = static_cast<double>(hop.arrives - hop.leaves) * kSecondsPerCycle;
    svg.add(
        "<circle r=\"%.1f\" fill=\"%s\" opacity=\"0\"><set attributeName=\"opacity\" to=\"1\" "
        "begin=\"clock.begin+%.2fs\" dur=\"%.2fs\"/>"
        "<animateMotion path=\"M%.1f %.1fL%.1f %.1f\" begin=\"clock.begin+%.2fs\" "
        "dur=\"%.2fs\"/></circle>\n",
        std::min(6.0, cell * 0.16), hop.is_reply ? kReplyColor : kRequestColor, begin, lasts,
        x_of(from), y_of(from), x_of(to), y_of(to) + (hop.port == kLocal ? cell * 0.2 : 0), begin,
        lasts);
  }
}

}  // namespace

std::string timeline(const RequestPlan& plan, const RequestTrace& trace, bool as_page) {
  Svg measure(0, 0);
  const double height = std::max(Timeline(measure, plan, trace).height(), kTop + kMeshSide + 130);
  Svg svg(kLeft + kTimeWidth + kMeshSide + 60, height);
  const std::string title = "A request from tile " + std::to_string(plan.client) + " to tile " +
                            std::to_string(plan.server) +
                            " and its reply: " + std::to_string(trace.ended - trace.begun) +
                            " cycles, " + std::to_string(plan.work) + " of them computing";
  svg.text(24, 28, "title", title);
  Timeline(svg, plan, trace).draw();
  svg.begin_group("translate(" + number(kLeft + kTimeWidth + 40) + " " + number(kTop - 20) + ")");
  draw_mesh(svg, plan, trace);
  draw_legend(svg);
  svg.end_group();
  return svg.finish(as_page, title);
}

}  // namespace nocsim::picture
