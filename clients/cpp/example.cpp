// A robot's loop: example POLICY [SECONDS]. The robot here is a stand-in whose readings are zeros.
#include <csignal>
#include <iostream>
#include <thread>

#include "adaptd.hpp"

namespace {

volatile std::sig_atomic_t running = 1;

struct Robot {
    explicit Robot(std::size_t elements) : readings(elements) {}
    adaptd::Vector read() const { return readings; }  // (O,), in the units of the manifest
    double apply(const adaptd::Vector&) { return 0.0; }  // the reward of what it led to
    adaptd::Vector readings;
};

void drive(const std::string& policy, double seconds) {
    adaptd::Client client;
    adaptd::Session session = client.open({policy});
    const std::chrono::duration<double> period(1 / session.facts["control_hz"].number());
    Robot robot(session.facts["observation"].items().size());
    adaptd::Observation observation;
    observation.new_task = true;  // this robot has just been switched on
    const auto start = adaptd::Clock::now();
    for (int tick = 1; running && tick * period.count() <= seconds; ++tick) {
        observation.values = robot.read();
        const auto answer = session.step(observation, 0.5 * period.count());
        if (answer.silent) std::cerr << "tick " << answer.seq << ": silent, so the fallback\n";
        observation = {};
        observation.reward = robot.apply(answer.action);
        std::this_thread::sleep_until(start + tick * period);  // late ticks do not bunch up
    }
    std::cout << session.next_seq << " ticks by " << session.facts["policy"].string() << '\n';
}

}  // namespace

int main(int count, char** arguments) {
    std::signal(SIGINT, [](int) { running = 0; });
    try {
        drive(count > 1 ? arguments[1] : "", count > 2 ? std::stod(arguments[2]) : 10.0);
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}
