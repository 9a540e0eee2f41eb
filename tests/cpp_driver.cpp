// cpp_driver ENDPOINT TIMEOUT makes clients/cpp/adaptd.hpp do what lines on standard input say;
// one line of JSON answers each.
//
//     open POLICY|- SESSION REWARDS         step TIMEOUT [KEY=VALUE ...]
//     send [KEY=VALUE ...]                  request JSON
//     tap SESSION                           ticks TIMEOUT
//     pack KIND FLAGS ... | FLOATS or TEXT  unpack HEX
//     json TEXT                             addresses ENDPOINT
//     quote HEX                             close
//
// KEY is one of obs, reward, applied (numbers with commas between), episode, task, invalid.
#include <cstdio>
#include <iostream>

#include "../clients/cpp/adaptd.hpp"

namespace {

using adaptd::Bytes;
using Words = std::istringstream;

Bytes hex(const Bytes& bytes) {
    Bytes text;
    for (const unsigned char byte : bytes) {
        char two[3];
        std::snprintf(two, sizeof two, "%02x", byte);
        text += two;
    }
    return text;
}

Bytes unhex(const Bytes& text) {
    Bytes bytes;
    for (std::size_t i = 0; i + 1 < text.size(); i += 2)
        bytes.push_back(static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16)));
    return bytes;
}

adaptd::Vector vector(const std::string& text) {
    adaptd::Vector values;
    std::istringstream words(text);
    for (std::string word; std::getline(words, word, ',');) values.push_back(std::stof(word));
    return values;
}

std::string list(const adaptd::Vector& values) {
    std::ostringstream to;
    for (const float value : values) {
        to << (to.tellp() ? "," : "[");
        if (std::isnan(value)) to << "NaN";
        else to << value;
    }
    return values.empty() ? "[]" : to.str() + "]";
}

std::string show(const adaptd::Answer& answer) {
    std::ostringstream to;
    to << "{\"action\":" << list(answer.action) << ",\"requested\":" << list(answer.requested)
       << ",\"limits\":" << answer.limits << ",\"flags\":" << answer.flags
       << ",\"adaptation\":" << static_cast<int>(answer.adaptation)
       << ",\"generation\":" << answer.generation << ",\"seq\":" << answer.seq
       << ",\"silent\":" << (answer.silent ? "true" : "false")
       << ",\"queue_ns\":" << answer.queue_ns << ",\"inference_ns\":" << answer.inference_ns << "}";
    return to.str();
}

std::string show(const adaptd::Tick& tick) {
    std::ostringstream to;
    to << "{\"session\":" << tick.session << ",\"seq\":" << tick.seq
       << ",\"observation\":" << list(tick.observation) << ",\"belief\":" << list(tick.belief)
       << ",\"answer\":" << show(tick.answer)
       << ",\"refused\":" << adaptd::quoted(tick.refusal ? tick.refusal->code : "") << "}";
    return to.str();
}

std::string show(const adaptd::Json& value) {
    using Type = adaptd::Json::Type;
    std::ostringstream to;
    to.precision(17);
    if (value.type() == Type::null) return "null";
    if (value.type() == Type::boolean) return value.boolean() ? "true" : "false";
    if (value.type() == Type::string) return adaptd::quoted(value.string());
    if (value.type() == Type::number) return to << value.number(), to.str();
    const bool object = value.type() == Type::object;
    for (std::size_t i = 0; i < value.items().size(); ++i)
        to << (i ? "," : "") << (object ? adaptd::quoted(value.keys()[i]) + ":" : "")
           << show(value.items()[i]);
    return object ? "{" + to.str() + "}" : "[" + to.str() + "]";
}

std::string show(const adaptd::Header& h) {
    std::ostringstream to;
    to << "[" << +h.kind << "," << h.flags << "," << h.session << "," << h.seq << "," << h.time_ns
       << "," << h.reward << "," << h.generation << "," << h.first << "," << h.second << ","
       << h.status << "," << h.limits << "," << h.queue_ns << "," << h.inference_ns << ","
       << +h.adaptation << "]";
    return to.str();
}

adaptd::Observation observation(Words& words) {
    adaptd::Observation found;
    for (std::string word; words >> word;) {
        const auto middle = word.find('=');
        const std::string key = word.substr(0, middle), value = word.substr(middle + 1);
        if (key == "obs") found.values = vector(value);
        if (key == "reward") found.reward = std::stod(value);
        if (key == "applied") found.applied_action = vector(value);
        if (key == "episode") found.episode_start = true;
        if (key == "task") found.new_task = true;
        if (key == "invalid") found.invalid = true;
    }
    return found;
}

std::string rest(Words& words) {
    std::string text;
    std::getline(words >> std::ws, text);
    return text;
}

std::string pack(Words& words) {
    adaptd::Header h;
    unsigned kind, adaptation;
    std::string bar, text;
    words >> kind >> h.flags >> h.session >> h.seq >> h.time_ns >> h.reward >> h.generation >>
        h.first >> h.second >> h.status >> h.limits >> h.queue_ns >> h.inference_ns >> adaptation >>
        bar;
    h.kind = static_cast<std::uint8_t>(kind);
    h.adaptation = static_cast<std::uint8_t>(adaptation);
    Bytes payload = text = rest(words);
    if (kind != static_cast<unsigned>(adaptd::Kind::error)) {
        payload.clear();
        for (const float value : vector(text)) adaptd::detail::put_float(payload, value);
    }
    return adaptd::quoted(hex(h.pack() + payload));
}

// What a test drives: one client, the session it opened last and one tap.
struct Driver {
    Driver(const std::string& endpoint, double timeout_s) : client(endpoint, timeout_s) {}

    std::string open(Words& words) {
        adaptd::Opening asked;
        words >> asked.policy >> asked.session >> std::boolalpha >> asked.sends_reward;
        if (asked.policy == "-") asked.policy.clear();
        session = client.open(asked);
        return show(session->facts);
    }

    std::string step(Words& words) {
        double timeout_s;
        words >> timeout_s;
        return show(session->step(observation(words), timeout_s));
    }

    std::string ticks(Words& words) {
        double timeout_s;
        words >> timeout_s;
        std::string to;
        for (const auto& tick : tap->ticks(timeout_s)) to += (to.empty() ? "" : ",") + show(tick);
        return "[" + to + "]";
    }

    std::string run(const std::string& verb, Words& words) {
        if (verb == "open") return open(words);
        if (verb == "step") return step(words);
        if (verb == "ticks") return ticks(words);
        if (verb == "send") return session->send(observation(words)) ? "true" : "false";
        if (verb == "request") return client.request(rest(words));
        if (verb == "close") return session->close(), "null";
        if (verb == "tap") return tap = client.tap(std::stoull(rest(words))), "null";
        if (verb == "pack") return pack(words);
        if (verb == "unpack") return show(adaptd::unpack(unhex(rest(words))));
        if (verb == "json") return show(adaptd::Json::parse(rest(words)));
        if (verb == "quote") return adaptd::quoted(unhex(rest(words)));
        if (verb == "addresses") {
            const auto at = adaptd::addresses(rest(words));
            return "[" + adaptd::quoted(at.data) + "," + adaptd::quoted(at.control) + "," +
                   adaptd::quoted(at.tap) + "," + adaptd::quoted(at.stream) + "]";
        }
        throw std::logic_error("no such verb: " + verb);
    }

    adaptd::Client client;
    std::optional<adaptd::Session> session;
    std::optional<adaptd::Tap> tap;
};

}  // namespace

int main(int, char** arguments) {
    Driver driver(arguments[1], std::stod(arguments[2]));
    for (std::string line; std::getline(std::cin, line);) {
        Words words(line);
        std::string verb, said, code;
        words >> verb;
        try {
            std::cout << driver.run(verb, words) << std::endl;
            continue;
        } catch (const adaptd::Error& error) {
            code = error.code, said = error.sentence;
        } catch (const adaptd::Timeout& error) {
            code = "TIMEOUT", said = error.what();
        } catch (const std::exception& error) {
            code = "EXCEPTION", said = error.what();
        }
        std::cout << "{\"error\":" << adaptd::quoted(code)
                  << ",\"sentence\":" << adaptd::quoted(said) << "}" << std::endl;
    }
}
