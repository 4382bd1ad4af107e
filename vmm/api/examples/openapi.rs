//! Prints the API's OpenAPI description: `vmm/api/openapi.json` is what this prints.

fn main() {
    print!("{}", secovia_vmm_api::openapi());
}
