#include <cstdio>

#include "nocsim/picture/timeline.h"
#include "nocsim/program/commands.h"
#include "nocsim/program/options.h"
#include "nocsim/program/output.h"
#include "nocsim/request.h"

namespace nocsim::program {
namespace {

void print(const RequestPlan& plan, const RequestTrace& trace) {
  std::printf("tile %u asks tile %u, %d hops away: %llu cycles\n", plan.client, plan.server,
              routers_between(plan.config, plan.client, plan.server) - 1,
              static_cast<unsigned long long>(trace.ended - trace.begun));
  std::printf("# cycles        tile    does\n");
  for (const RequestTrace::Span& span : trace.spans)
    std::printf(
        "%6llu..%-6llu %5u    %s\n", static_cast<unsigned long long>(span.from - trace.begun),
        static_cast<unsigned long long>(span.to - trace.begun), span.tile, span.what.c_str());
}

}  // namespace

int request_command(const Arguments& arguments) {
  MeshOptions mesh;
  mesh.profile = find_profile("udn");
  mesh.config = mesh.profile->config;
  Options options;
  RequestPlan plan;
  std::string from, to, plot;
  int work = 20, warmup = 500;
  mesh.add_to(options);
  options.section("The endpoints");
  options.number("queue-words", "words that a tile's queues hold", mesh.config.queue_words, 1,
                 1 << 20);
  options.section("The request");
  options.add("from", "NODE", "the client: a number or X,Y (0)", [&](auto text) { from = text; });
  options.add("to", "NODE", "the server (in the opposite corner)", [&](auto text) { to = text; });
  options.number("request", "words of the request (3)", plan.request_words, 1, 1023);
  options.number("reply", "words of the reply (2)", plan.reply_words, 1, 1023);
  options.number("work", "cycles that the server computes (20)", work, 0, 100'000);
  options.add("rate", "R", "words for each cycle and tile that all others send each other (0)",
              [&](auto text) { plan.background = rate_from(text); });
  options.number("warmup", "cycles before the request, if others send (500)", warmup, 0, 1'000'000);
  options.add("seed", "N", "of the others' traffic (1)", [&](auto text) {
    plan.seed = static_cast<uint64_t>(number_from(text, 0, 2147483647, "--seed"));
  });
  options.section("Results");
  options.path("plot", "a timeline and an animation, .svg or .html", plot);
  if (!options.parse(arguments)) {
    std::printf(
        "nocsim request [--OPTION=VALUE...]\n\nRuns a client and a server on two tiles (of profile "
        "udn unless "
        "another is named), sends one request\nand its reply, and prints what the two did "
        "when.\n%s",
        options.help().c_str());
    return 0;
  }
  mesh.check();
  plan.config = mesh.config;
  plan.client = from.empty() ? 0 : node_from(from, plan.config);
  plan.server =
      to.empty() ? static_cast<Node>(plan.config.nodes() - 1) : node_from(to, plan.config);
  if (plan.client == plan.server) throw BadOption("client and server have to be two tiles");
  if (plan.background > 500'000) throw BadOption("--rate is at most 0.5 here");
  plan.work = static_cast<Cycle>(work);
  plan.warmup = plan.background ? static_cast<Cycle>(warmup) : 0;

  Output picture(plot);
  const RequestTrace trace = trace_request(plan);
  if (!trace.complete)
    throw std::runtime_error("the request did not complete: " +
                             trace.why.substr(0, trace.why.find('\n')));
  print(plan, trace);
  if (picture.wanted()) picture.write(picture::timeline(plan, trace, picture.is_page()));
  return 0;
}

}  // namespace nocsim::program
