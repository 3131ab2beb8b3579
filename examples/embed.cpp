// Texts, vectors and exceptions, from C++17: an owner of a model that throws its errors.
//
//     packaging/install-capi PREFIX
//     export PKG_CONFIG_PATH=PREFIX/lib/pkgconfig LD_LIBRARY_PATH=PREFIX/lib
//     c++ -std=c++17 examples/embed.cpp $(pkg-config --cflags --libs jinabert) -o embed
//     ./embed models/jinabert-mini-en

#include <jinabert.h>

#include <functional>
#include <iostream>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

struct Error : std::runtime_error {
    explicit Error(const jinabert_error &error)
        : std::runtime_error(error.message), status(error.status), index(error.index) {}
    jinabert_status status;
    std::size_t index;
};

class Embedder {
public:
    explicit Embedder(const std::string &model, const char *device = nullptr) {
        jinabert_options options{};
        options.size = sizeof options;
        options.device = device;
        jinabert_embedder *opened = nullptr;
        check([&](auto *error) { return jinabert_open(model.c_str(), &options, &opened, error); });
        handle.reset(opened);
        is.size = sizeof is;
        check([&](auto *error) { return jinabert_describe(opened, &is, error); });
    }

    std::size_t dimensions() const { return is.dimensions; }
    std::string device() const { return is.device; }

    // One vector after the other.
    std::vector<float> embed(const std::vector<std::string_view> &texts) const {
        std::vector<const char *> starts;
        std::vector<std::size_t> lengths;
        for (auto text : texts) {
            starts.push_back(text.data());
            lengths.push_back(text.size());
        }
        std::vector<float> vectors(texts.size() * is.dimensions);
        check([&](auto *error) {
            return jinabert_embed(handle.get(), starts.data(), lengths.data(), texts.size(),
                                  vectors.data(), vectors.size(), nullptr, error);
        });
        return vectors;
    }

private:
    static void check(const std::function<jinabert_status(jinabert_error *)> &call) {
        jinabert_error error;
        if (call(&error) != JINABERT_STATUS_OK) throw Error(error);
    }

    struct Free {
        void operator()(jinabert_embedder *embedder) const { jinabert_free(embedder); }
    };
    std::unique_ptr<jinabert_embedder, Free> handle;
    jinabert_description is{};
};

int main(int argc, char **argv) try {
    if (argc < 2 || jinabert_abi_version() != JINABERT_ABI_VERSION) {
        std::cerr << "usage: embed MODEL [DEVICE]\n";
        return 2;
    }
    const Embedder embedder(argv[1], argc > 2 ? argv[2] : nullptr);
    const auto vectors = embedder.embed({"A blue cat", "A cat that is blue"});
    const auto second = vectors.begin() + static_cast<std::ptrdiff_t>(embedder.dimensions());
    std::cout << embedder.dimensions() << " components on " << embedder.device() << "\ncosine "
              << std::inner_product(vectors.begin(), second, second, 0.0) << '\n';
    try {
        embedder.embed({"good", "\xff"});
    } catch (const Error &error) {
        std::cout << "text " << error.index << ": " << error.what() << '\n';
    }
    return 0;
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
