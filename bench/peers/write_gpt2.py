"""Writes the random GPT-2 of these scripts as a Hugging Face directory, and prints the ids of the swap's two prompts as JSON.
usage: write_gpt2.py DIR"""
import json, sys, torch
from transformers import GPT2Config, GPT2LMHeadModel
torch.manual_seed(0)
GPT2LMHeadModel(GPT2Config()).save_pretrained(sys.argv[1])
g = torch.Generator().manual_seed(1)
clean = torch.randint(0, 50257, (1, 15), generator=g); corrupt = clean.clone(); corrupt[0, 3] = 11; corrupt[0, 9] = 13
print(json.dumps({"clean": clean[0].tolist(), "corrupt": corrupt[0].tolist()}))
